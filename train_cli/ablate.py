"""Train variants of one recipe, each with several seeds, and show what they learned as a table.

    python -m train_cli ablate ablation_connectors
    python -m train_cli ablate ablation_ears --seeds 1 --steps 50

The variants are the phases of a file (`recipes list`, or your own); each must say under `evaluate`
which questions are asked at the end, with `samples`. Other settings hold for every run. What is
done is kept: the same command goes on where it was stopped. The table is Markdown; an answer counts
when greedy decoding gives it letter by letter.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from train_cli import exits
from train_cli.config import PHASES, ConfigError, check_file, find_config, read_recipe
from train_cli.exits import OK, fail
from train_cli.run import check_memory, trained
from vl3.arguments import did_you_mean, shown, whole
from vl3.training.changes import differences, last_run
from vl3.training.ready import check_ready
from vl3.training.recipe import Recipe
from vl3.training.recorded import read
from vl3.weights.runs import checkpoints

SEEDS = 3


class Parser(exits.Parser):
    """Leaves what it does not know to the recipes, and their mistakes too."""

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> argparse.Namespace:
        chosen, settings = self.parse_known_args(arguments, namespace)
        chosen.settings = settings
        return chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="NAME|FILE", help="recipes with phases, the variants")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="runs of each variant (default: %(default)s)"
    )
    parser.add_argument(
        "--variants", metavar="A,B", help="some of them, with commas between (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/NAME)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(chosen: argparse.Namespace) -> int:
    try:
        runs = variant_runs(chosen)
        for recipes in runs.values():
            for recipe in recipes:
                _check(recipe)
            check_memory(recipes[0])
    except (ConfigError, ValueError, OSError) as error:
        fail(error)
    from vl3.training import ablation

    each = [(name, recipes[seed]) for seed in range(chosen.seeds) for name, recipes in runs.items()]
    for number, (variant, recipe) in enumerate(each, 1):
        out = Path(recipe.out)
        if ablation.read(out) is not None:
            continue
        which = f"{number} of {len(each)}: {variant}, seed {recipe.seed}"
        print(which, file=sys.stderr, flush=True)
        code, last = trained(partial(_begin, recipe), chosen.quiet)
        if code != OK:
            print("stopped; the same command goes on", file=sys.stderr)
            return code
        ablation.write(ablation.score(last, recipe.evaluate), out)
    scored = {name: [ablation.read(Path(r.out)) for r in recipes] for name, recipes in runs.items()}
    print(ablation.table(scored))
    return OK


def _check(recipe: Recipe) -> None:
    """Raises: ValueError or OSError where the run cannot begin, or was begun otherwise."""
    out = Path(recipe.out)
    if not checkpoints(out):
        check_ready(recipe)
        return
    begun = read(last_run(out)[1]["recipe"])
    for name, was, becomes in differences(replace(begun, out=recipe.out), recipe):
        raise ValueError(
            f"{out} holds a run with {name} {shown(was)} where {shown(becomes)} is asked for; "
            "choose another --out, or remove that folder"
        )


def _begin(recipe: Recipe, **options):
    from vl3.training import run as runs

    out = Path(recipe.out)
    return runs.resume(out, **options) if checkpoints(out) else runs.run(recipe, **options)


def variant_runs(chosen: argparse.Namespace) -> dict[str, list[Recipe]]:
    """The recipes of all runs, those of each variant in the order of their seeds.

    Raises: ConfigError or ValueError, one sentence.
    """
    whole("--seeds", chosen.seeds, low=1)
    file = find_config(chosen.name)
    found = list(check_file(file).get(PHASES, {}))
    if not found:
        raise ConfigError(f"{file.stem} has no phases to compare; ablation_connectors is one with")
    wanted = chosen.variants.split(",") if chosen.variants else found
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found)
            raise ConfigError(f"{file.stem} has no variant {shown(name)}{hint}")
    out = chosen.out or Path("runs") / file.stem
    runs: dict[str, list[Recipe]] = {}
    for name in wanted:
        for seed in range(1, chosen.seeds + 1):
            own = ["--seed", str(seed), "--out", str(out / f"{name}-{seed}")]
            recipe = read_recipe(["--config", f"{file}:{name}", *own, *chosen.settings])
            if not recipe.evaluate.sources or recipe.evaluate.every:
                raise ConfigError(
                    f"{file.stem}:{name} needs evaluate.sources, which are asked at the end, and "
                    "no evaluate.every"
                )
            runs.setdefault(name, []).append(recipe)
    return runs
