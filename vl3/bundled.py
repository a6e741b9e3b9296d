"""Where the files lie that come with vl3: nano, the clips, the page's scripts, the recipes.

A wheel holds kernels/ and assets/ of the repository inside this package (see setup.py); a checkout
has them beside it. Nothing is ever written there.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# Strings and paths rather than Traversable: torch and PyAV open files of a disk.
PACKAGE = Path(str(files("vl3")))
IS_WHEEL = (PACKAGE / "assets").is_dir()
HOME = PACKAGE if IS_WHEEL else PACKAGE.parent  # all that is ours, and in a wheel no more
ASSETS = HOME / "assets"
KERNELS = HOME / "kernels"
NANO = ASSETS / "nano"
NANO_AV = ASSETS / "nano-av"
CLIPS = ASSETS / "clips"
VOICES = ASSETS / "voices"
WEB = ASSETS / "web"
# Each name means the bundled model also where there is no such folder.
NANO_NAME, NANO_AV_NAME = "assets/nano", "assets/nano-av"
MODELS = {NANO_NAME: NANO, NANO_AV_NAME: NANO_AV}
PAGE_MODEL = NANO_AV_NAME  # what page and terminal answer with where no other is named
PAGE_COMMAND = "vl3" if IS_WHEEL else "python app.py"


def recipes() -> Path:
    """The folder of the recipes that come with the training commands."""
    return Path(str(files("train_cli"))) / "recipes"
