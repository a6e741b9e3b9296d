"""Any-resolution vision: frames to patches, which of them to keep, and their features."""

from vl3.vision.dedup import unique_frames
from vl3.vision.downsample import downsample
from vl3.vision.encoder import VisionEncoder
from vl3.vision.patchify import patchify, unpatchify
from vl3.vision.prune import prune
from vl3.vision.resize import fit_grid
from vl3.vision.rope2d import angles, positions
from vl3.vision.token_map import token_layout

__all__ = [
    "VisionEncoder",
    "angles",
    "downsample",
    "fit_grid",
    "patchify",
    "positions",
    "prune",
    "token_layout",
    "unique_frames",
    "unpatchify",
]
