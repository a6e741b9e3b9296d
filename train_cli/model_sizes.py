"""Sizes of the model that a recipe starts from, known without loading it."""

from __future__ import annotations

import copy
import re
from pathlib import Path

from train_cli.config import bundled, read_recipe
from vl3.training.recipe import Recipe

MAKING = ("stage", "nano", "vl2", "ear")  # how recipes begin whose runs others start from
# Language models, and the VideoLLaMA with the same sizes.
LANGUAGES = {
    "mistralai/Mistral-7B-Instruct-v0.2": "2-7B",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "2-8x7B",
    "Qwen/Qwen2-72B-Instruct": "2-72B",
    "Qwen/Qwen2-7B-Instruct": "2.1-7B-16F",
}


class UnknownSizes(ValueError):
    """The sizes of the model cannot be read here."""


def sizes(recipe: Recipe):
    """Sizes of the model that the recipe starts from.

    A run that has not been made has the sizes of its bundled recipe's start; the released models
    and the parts they were made of are known by name.
    """
    from vl3.config import VL3Config, nano

    start = recipe.start
    if start.nano:
        found = nano(vocab_size=1024, image_token_id=0)
    elif start.model:
        found = copy.deepcopy(_whole(start.model))
        found.connector = start.connector or found.connector
    else:
        text = _text(start.language)
        vision = _tower(start.vision) if start.tower else _vision(start.vision)
        found = VL3Config(vision_config=vision, text_config=text)
        found.connector = start.connector or found.connector
    return _with_ear(found, start.ear) if start.ear else found


def _with_ear(config, name: str):
    """The sizes with those of an ear, whose connector is new."""
    from vl3.weights.ears import read_ear

    found = copy.deepcopy(config)
    found.audio_config = or_unknown(lambda: read_ear(name))
    found.audio_token_id = found.image_token_id  # of no account for sizes
    return found


def _whole(name: str):
    from vl3.weights.sizes import sizes_of

    made_by = None if Path(name).expanduser().is_dir() else _recipe_of(name)
    return sizes(made_by) if made_by else or_unknown(lambda: sizes_of(name))


def _recipe_of(folder: str) -> Recipe | None:
    """The bundled recipe, with the overlay 7b where its name ends so, whose runs lie there."""
    for name in bundled():
        for twin in (name, f"{name}_7b"):
            if folder.rstrip("/") == f"runs/{twin}" and name.startswith(
                ("stage", "nano", "vl2", "ear")
            ):
                return read_recipe(["--config", twin])
    return None


def _vision(name: str):
    from vl3.config import VL3VisionConfig
    from vl3.families import read_vision
    from vl3.families.videollama2 import TOWERS

    if Path(name).expanduser().is_dir():
        return or_unknown(lambda: read_vision(Path(name)))
    if name in ("google/siglip-so400m-patch14-384", "DAMO-NLP-SG/SigLIP-NaViT"):
        return VL3VisionConfig()
    if name in TOWERS:
        return TOWERS[name]
    return _whole(name).vision_config


def _tower(name: str):
    from vl3.families.videollama2 import TOWERS
    from vl3.weights.towers import read_tower

    if Path(name).expanduser().is_dir():
        return or_unknown(lambda: read_tower(Path(name)))
    if name not in TOWERS:
        raise UnknownSizes(f"the sizes of {name} are not known here; give a folder")
    return TOWERS[name]


def _text(name: str):
    from vl3.config import videollama3_2b, videollama3_7b
    from vl3.families import read_language
    from vl3.families.videollama2 import released

    if Path(name).expanduser().is_dir():
        return or_unknown(lambda: read_language(Path(name)))
    known = {"1.5B": videollama3_2b, "7B": videollama3_7b}
    if name in LANGUAGES:
        return released(f"DAMO-NLP-SG/VideoLLaMA{LANGUAGES[name]}").text_config
    if matched := re.fullmatch(r"Qwen/Qwen2\.5-(1\.5B|7B)(-Instruct)?", name):
        return known[matched[1]]().text_config
    raise UnknownSizes(f"the sizes of {name} are not known here; give a folder")


def or_unknown(reading):
    """What reading() returns. Raises: UnknownSizes for a model that cannot be read."""
    from vl3.families.layouts import LayoutError

    try:
        return reading()
    except (LayoutError, ValueError, OSError) as error:
        raise UnknownSizes(str(error)) from error
