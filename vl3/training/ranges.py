"""Which values each setting of a recipe takes, told by its type hint and the tables here."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from vl3.arguments import choice, number, shown, whole

if TYPE_CHECKING:
    from vl3.training.recipe import World

SEEING = ("vision", "connector", "language")  # what every model has
HEARING = ("ear", "audio_connector")  # what a model with an ear has besides
MODULES = (*SEEING, *HEARING)
ADAPTED = (*MODULES, "words")  # what can have adapters; words is the language model's output head
BLOCKS = ("vision", "language", "ear")  # modules whose blocks can be computed again


def _shares(*names: str) -> dict[str, tuple]:
    return {name: (number, {"low": 0, "high": 1}) for name in names}


def _counts(*names: str, low: int = 1) -> dict[str, tuple]:
    return {name: (whole, {"low": low}) for name in names}


def _above_0(*names: str) -> dict[str, tuple]:
    return {name: (number, {"above": 0}) for name in names}


# Of every number of a recipe, by its dotted name without those of lists: how it is taken.
RANGES = {
    **_counts(
        "steps",
        "save_every",
        "keep",
        "log_every",
        "data.samples",
        "world.questions",
        "adapter.rank",
        "adapter.alpha",
        "adapter.width",
        "media.max_frames",
        "media.visual_tokens",
        "media.frame_tokens",
        "media.sound_tokens",
        "batch.samples",
        "batch.tokens",
        "batch.patches",
        "batch.pieces",
        "batch.parts",
        "batch.max_tokens",
        "evaluate.every",
        "evaluate.samples",
        "evaluate.max_new_tokens",
    ),
    **_counts(
        "nano.encoder_steps",
        "nano.spatial_images",
        "nano.ear_steps",
        "nano.sounds",
        "nano.sources",
        "least_steps",
        "remember",
        "workers",
        "world.seconds",
        "world.sprites",
        "world.sounds",
        low=0,
    ),
    **_counts("world.sizes_px", low=28),
    **_shares(
        "max_bad",
        "optim.betas",
        "optim.warmup",
        "optim.floor",
        "world.follow",
        "world.digits",
        "world.changing",
        "world.shaky",
        "world.noisy",
        "world.rescaled",
        "world.sound",
        "world.alone",
        "world.voices",
        "world.hum",
    ),
    **_above_0("epochs", "media.fps", "optim.eps", "optim.muon_factor"),
    **{
        name: (number, {"low": 0})
        for name in (
            "rates.vision",
            "rates.connector",
            "rates.language",
            "rates.ear",
            "rates.audio_connector",
            "rates.adapter",
            "media.cache_gb",
            "optim.weight_decay",
            "optim.clip",
            "world.families",
        )
    },
    "seed": (whole, {"low": 0, "high": 2**32 - 1}),
    "adapter.dropout": (number, {"low": 0, "high": 0.9}),
    "media.image_merge": (whole, {"low": 1, "high": 4}),
    "media.video_merge": (whole, {"low": 1, "high": 4}),
}

# Of every list of words: those it may hold.
WORDS = {"adapter.on": ADAPTED, "checkpointing": BLOCKS}


def check_settings(part, prefix: str) -> None:
    """Puts every setting of a dataclass into its type; numbers become Python's own.

    prefix: dotted name of the dataclass with a final dot; a data set's is data.NAME.
    Raises: ValueError, one sentence that names the setting, for a value outside its range.
    """
    for name, hint in get_type_hints(type(part)).items():
        value = _checked(hint, getattr(part, name), prefix + name, (type(part).__name__, name))
        setattr(part, name, value)


def _checked(hint: Any, value, name: str, key: tuple[str, str]):
    """A value as its type hint has it. Raises: ValueError, one sentence."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType or type(None) in inner:
        if value is None:
            return None
        (hint,) = (one for one in inner if one is not type(None))
        return _checked(hint, value, name, key)
    if origin is Literal:
        return choice(name, value, inner)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, hint):
            raise ValueError(f"{name} is a {hint.__name__} - got {shown(value)}")
        check_settings(value, f"{name}.")
        return value
    if origin is list:
        return _checked_list(inner[0], value, name, key)
    if origin is tuple:
        return tuple(_checked_list(inner[0], value, name, key, length=len(inner)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is names with a number each - got {shown(value)}")
        return {one: _checked(inner[1], each, f"{name}.{one}", key) for one, each in value.items()}
    if hint in (int, float):
        take, limits = RANGES[_ranged(key)]
        return take(name, value, **limits)
    if not isinstance(value, hint) or value == "":
        kind = "true or false" if hint is bool else "a text that is not empty"
        raise ValueError(f"{name} is {kind} - got {shown(value)}")
    if (words := WORDS.get(_ranged(key))) is not None:
        return choice(name, value, words)
    return value


def _checked_list(hint, value, name: str, key: tuple[str, str], length: int | None = None):
    if key[0] == "World" and get_origin(hint) is not list:
        length = 2  # least and most, or height and width
    fits = isinstance(value, list | tuple) and length in (None, len(value))
    if not fits:
        wanted = "a list" if length is None else f"a list of {length} numbers"
        raise ValueError(f"{name} is {wanted} - got {shown(value)}")
    if is_dataclass(hint):
        names = (getattr(one, "name", None) or number for number, one in enumerate(value, 1))
        return [_checked(hint, one, f"{name}.{of}", key) for of, one in zip(names, value)]
    return [_checked(hint, one, name, key) for one in value]


def _ranged(key: tuple[str, str]) -> str:
    """The name under which RANGES and WORDS have a field of a class."""
    owner, name = key
    prefix = {"Recipe": "", "Source": "data."}.get(owner, f"{owner.lower()}.")
    return prefix + name


def check_world(name: str, world: World, prefix: str) -> None:
    """Raises: ValueError where the settings of a toy world contradict each other."""
    from vl3.toyworld.hearing import HEARD_FAMILIES, SILENT_FAMILIES, SOUND_FAMILIES
    from vl3.toyworld.questions import FAMILIES

    ranges = {"seconds": world.seconds, "sprites": world.sprites, "sounds": world.sounds}
    for setting, (low, high) in ranges.items():
        if low > high:
            raise ValueError(
                f"{prefix}.{setting} is the least and the most - got {low} and {high}; swap them"
            )
    for family in world.families:
        choice(f"a family of data set {name!r}", family, FAMILIES | SOUND_FAMILIES)
    asked = {family for family, weight in world.families.items() if weight}
    if not asked:
        raise ValueError(
            f"data set {name!r} asks nothing: name some world.families, e.g. colour: 1"
        )
    if world.sound and not world.seconds[0]:
        raise ValueError(f"{prefix}.sound needs clips: give {prefix}.seconds, e.g. [3, 10]")
    if world.sound < 1 and asked.isdisjoint({*FAMILIES, *SILENT_FAMILIES}):
        raise ValueError(
            f"data set {name!r} asks nothing of its clips without sound: set {prefix}.sound to 1, "
            "or name a family like colour or any_sound as well"
        )
    if world.sound and world.alone and asked.isdisjoint(HEARD_FAMILIES):
        raise ValueError(
            f"data set {name!r} asks nothing of its sounds without picture: set {prefix}.alone to "
            "0, or name a family like hearing as well"
        )
