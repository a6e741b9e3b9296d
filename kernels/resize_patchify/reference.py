"""Frames resized by PIL, and the order of patches. This is the definition; fused.py must agree."""

from __future__ import annotations

import torch
from PIL import Image


def resize(frames_TYX3: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Frames at (height, width), by PIL's bicubic filter on levels.

    The filter is widened where a side shrinks, the horizontal pass comes first and is rounded to
    levels before the vertical one.

    Shapes: frames_TYX3 - uint8; returned with Y, X = size
    """
    resized_TYX3 = torch.empty(len(frames_TYX3), *size, 3, dtype=torch.uint8).numpy()
    for index, frame_YX3 in enumerate(frames_TYX3.numpy(force=True)):
        picture = Image.fromarray(frame_YX3).resize(size[::-1], Image.Resampling.BICUBIC)
        resized_TYX3[index] = picture
    return torch.from_numpy(resized_TYX3).to(frames_TYX3.device)


def resize_patchify(
    frames_TYX3: torch.Tensor, rows: int, cols: int, patch: int, merge: int
) -> torch.Tensor:
    """Patches of frames resized to rows x cols patches of patch x patch pixels.

    Block order: the merge x merge patches of a token follow each other. Levels stay levels, since
    normalising them is part of the patch embedding; floats would be four times the memory.

    Shapes: frames_TYX3 - uint8; rows and cols are multiples of merge
            returns pixels_NP - uint8, each patch channel -> row -> column
    """
    frames_TYX3 = resize(frames_TYX3, (rows * patch, cols * patch))
    sides = len(frames_TYX3), rows // merge, merge, patch, cols // merge, merge, patch, 3
    ordered = frames_TYX3.view(sides).permute(0, 1, 4, 2, 5, 7, 3, 6)
    return ordered.reshape(len(frames_TYX3) * rows * cols, 3 * patch * patch)
