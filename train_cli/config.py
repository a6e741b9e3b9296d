"""A recipe from YAML files and the command line, typed and checked by the dataclasses of vl3.

    --config stage4_video --config lora     bundled names or files, merged in this order
    stage4_video lora                       the same, where they come first
    stage4_video,7b                         the same with a comma
    nano_curriculum:letters                 a phase of a curriculum, a recipe among others in a file
    --optim.clip 0.5                        any setting by its dotted name
    --data.scene.path scene.jsonl           a setting of one data set, by the data set's name

Neither torch nor transformers is imported here, so help and mistakes come at once.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
import typing
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_loader,
)

from train_cli.exits import OK, fail
from train_cli.setting_names import (
    descriptions,
    nearest,
    no_setting,
    one_sentence,
    setting_names,
    unknown_names,
)
from vl3.bundled import recipes
from vl3.training.recipe import Adapter, Recipe, Source


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Types and defaults as jsonargparse shows them; the description as it was written."""


class _Yaml(yaml.SafeLoader):
    """YAML as its version 1.2 reads it: `on` and `no` are words, 1e-5 is a number."""

    yaml_implicit_resolvers: typing.ClassVar[dict] = {
        first: [(tag, rule) for tag, rule in rules if not tag.endswith((":bool", ":float"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf)$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    return yaml.load(text, _Yaml)


set_loader("yaml_core", load_yaml, exceptions=(yaml.YAMLError,))

BUNDLED = recipes()
OVERLAY = "after"  # the key of a file whose settings depend on the recipe before it
PHASES, EVERY = "phases", "every"  # the keys of a curriculum: recipes, and what all of them have


class ConfigError(ValueError):
    """A mistake in a file or on the command line, in one sentence."""


class RecipeParser:
    """The command line of a command that works on a recipe; used like an argparse parser.

    What parse_args returns has the checked recipe as `recipe`, next to the command's own options.
    """

    def __init__(self, prog: str | None = None, description: str | None = None) -> None:
        self.options = ["config", "print_config"]
        self.parser = ArgumentParser(
            prog=prog,
            description=description,
            epilog=_lists_help(),
            formatter_class=_Help,
            parser_mode="yaml_core",
            print_config=None,
            exit_on_error=False,
        )
        self.parser.add_argument(
            "--config",
            action=ActionConfigFile,
            metavar="NAME|FILE",
            help="bundled recipe (see `recipes list`) or YAML file; several are merged in order",
        )
        self.parser.add_class_arguments(Recipe, None)
        self.parser.add_argument(
            "--print_config", action="store_true", help="print the merged recipe as YAML and leave"
        )
        described = dict(descriptions(Recipe))
        for action in self.parser._actions:
            action.help = described.get(action.dest, action.help)

    def add_argument(self, *names: str, **options) -> None:
        self.options += [name.lstrip("-") for name in names]
        self.parser.add_argument(*names, **options)

    def parse_args(self, arguments: list[str]) -> Namespace:
        """Raises: SystemExit(2) after one sentence on standard error."""
        try:
            chosen = self._parse(arguments)
        except ArgumentError as error:
            fail(one_sentence(error, self.options))
        except ValueError as error:
            fail(error)
        if chosen.print_config:
            print(to_yaml(chosen.recipe), end="")
            raise SystemExit(OK)
        return chosen

    def _parse(self, arguments: list[str]) -> Namespace:
        rest, overrides = split_data(with_configs(arguments))
        rest = resolve_configs(rest)
        chosen = self.parser.parse_args(rest)
        if overrides:
            data = json.dumps(with_overrides(chosen.data, overrides))
            chosen = self.parser.parse_args([*rest, "--data", data])
        made = self.parser.instantiate(chosen)
        names = [field.name for field in dataclasses.fields(Recipe)]
        chosen.recipe = Recipe(**{name: made[name] for name in names})
        return chosen


def read_recipe(arguments: list[str]) -> Recipe:
    """The recipe that `--config` files and dotted settings describe; see RecipeParser."""
    return RecipeParser().parse_args(arguments).recipe


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, as a file that --config reads."""
    return yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


# Files


def bundled() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in BUNDLED.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of that path, or the bundled recipe of that name.

    Raises: ConfigError with the nearest bundled name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; --config takes a file or the name of a recipe")
    if path.name == name and (BUNDLED / f"{path.stem}.yaml").is_file():
        return BUNDLED / f"{path.stem}.yaml"
    raise ConfigError(
        f"no file and no bundled recipe {name!r}{nearest(path.stem, bundled())}; "
        "`recipes list` shows all"
    )


def find_phase(name: str) -> tuple[Path, str]:
    """The file of FILE:PHASE, found as find_config does, and the phase; "" where none is named."""
    stem, _, phase = name.rpartition(":")
    if stem and not Path(name).expanduser().exists():
        return find_config(stem), phase
    return find_config(name), ""


def with_configs(arguments: list[str]) -> list[str]:
    """The arguments with --config before each name that comes ahead of all options."""
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    named = [word for name in arguments[:count] for word in ("--config", name)]
    return [*named, *arguments[count:]]


def resolve_configs(arguments: list[str]) -> list[str]:
    """The arguments with every --config as settings that all exist: a file, a phase of one, or the
    part of an overlay that goes on the recipe before it."""
    resolved, before, is_config = [], None, False
    for argument in arguments:
        if is_config or argument.startswith("--config="):
            for name in _names(argument if is_config else argument.partition("=")[2]):
                file, phase = find_phase(name)
                settings = check_file(file)
                if phase or PHASES in settings:
                    found = _phase(file, settings, phase)
                    resolved += [word for part in found for word in ("--config", json.dumps(part))]
                    before = found[-1].get("name")
                    continue
                if (parts_by_name := settings.get(OVERLAY)) is not None:
                    resolved += ["--config", json.dumps(_part(file, parts_by_name, before))]
                    continue
                resolved += ["--config", str(file)]
                before = settings.get("name") or file.stem
        elif argument != "--config":
            resolved.append(argument)
        is_config = argument == "--config"
    return resolved if not is_config else [*resolved, "--config"]


def _names(given: str) -> list[str]:
    """The recipes of one --config: several with commas between; x_7b is x with the overlay 7b."""
    if Path(given).expanduser().exists():
        return [given]
    names = []
    for name in given.split(","):
        base, _, overlay = name.rpartition("_")
        is_twin = name not in bundled() and {base, overlay} <= set(bundled())
        names += [base, overlay] if is_twin else [name]
    return names


def _phase(file: Path, settings: dict, phase: str) -> list[dict]:
    """What is merged for a phase of a curriculum, in this order."""
    phases = settings.get(PHASES)
    if phases is None:
        raise ConfigError(f"{file.stem} is one recipe and has no phases; leave out :{phase}")
    if phase not in phases:
        raise ConfigError(
            f"{file.stem} has the phases {', '.join(phases)}; name one, like "
            f"{file.stem}:{next(iter(phases))} - got {phase or 'none'}{nearest(phase, phases)}"
        )
    return [settings.get(EVERY, {}), phases[phase]]


def _part(file: Path, parts_by_name: dict, before: str | None) -> dict:
    if before not in parts_by_name:
        raise ConfigError(
            f"{file.stem} goes on {', '.join(parts_by_name)} - got {before or 'no recipe'} before "
            f"it; name one first, like {next(iter(parts_by_name))},{file.stem}"
        )
    return parts_by_name[before]


def check_file(file: Path) -> dict:
    """The settings in a file. Raises ConfigError where it is not YAML or one does not exist."""
    try:
        raw = load_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{file.name} is not a text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{file.name} is not YAML{where}: {problem}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file.name} holds no settings; see `recipes show stage1_...` for one")
    each = [raw]
    if set(raw) == {OVERLAY} and isinstance(raw[OVERLAY], dict):
        each = list(raw[OVERLAY].values())
    elif {PHASES} <= set(raw) <= {PHASES, EVERY} and isinstance(raw[PHASES], dict):
        each = [raw.get(EVERY, {}), *raw[PHASES].values()]
    for settings in each:
        for name in unknown_names(settings, Recipe):
            raise ConfigError(f"{file.name}: {no_setting(name)}")
    return raw


# Settings on the command line


def _lists_help() -> str:
    """What --help says of settings inside lists and of parts that may be missing."""
    groups = {
        "the adapter, where there is one": (Adapter, "adapter."),
        "each data set, by its name": (Source, "data.NAME."),
    }
    lines = []
    for title, (kind, prefix) in groups.items():
        lines += [f"settings of {title}:"]
        for name, text in descriptions(kind, prefix):
            lines += [
                f"  --{name}",
                *textwrap.wrap(text, 74, initial_indent=" " * 24, subsequent_indent=" " * 24),
            ]
        lines.append("")
    return "\n".join(lines)


def split_data(arguments: list[str]) -> tuple[list[str], list[tuple[str, str, Any]]]:
    """The arguments without --data.NAME.SETTING VALUE, and those as (name, setting, value)."""
    rest, overrides = [], []
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        check_option(option)
        matched = re.fullmatch(r"--data\.([^.]+)\.(.+)", option)
        if not matched:
            rest.append(argument)
            continue
        name, setting = matched.groups()
        if not equals and (value := next(waiting, None)) is None:
            raise ConfigError(f"{option} needs a value")
        overrides.append((name, setting, _value(setting, value)))
    return rest, overrides


def check_option(option: str) -> None:
    """Raises ConfigError for an option with a dot that is not a setting."""
    if not re.match(r"--\w+\.", option) or option.endswith(".help"):
        return
    name = option.removeprefix("--").removesuffix("+")
    if re.sub(r"^data\.[^.]+\.", "data.NAME.", name) not in set(setting_names()):
        raise ConfigError(no_setting(re.sub(r"^data\.[^.]+\.", "data.", name)))


def _value(setting: str, text: str) -> Any:
    """Numbers, null and lists as YAML reads them; a path or a name stays as it was typed."""
    is_text = setting in ("name", "path", "format", "media_root") and text != "null"
    return text if is_text else load_yaml(text)


def with_overrides(data: list[Namespace], overrides: list[tuple[str, str, Any]]) -> list[dict]:
    """The data sets with those settings; where the recipe names none, a name makes a new one."""
    sources = {source.name: source.as_dict() for source in data}
    for name, setting, value in overrides:
        if name not in sources:
            if data:
                raise ConfigError(
                    f"the recipe has no data set {name!r}{nearest(name, sources)}; "
                    f"it has {', '.join(sources)}"
                )
            sources[name] = {"name": name}
        at, *inside = setting.split(".")
        if inside:
            value = (sources[name].get(at) or {}) | {inside[0]: value}
        sources[name][at] = value
    return list(sources.values())
