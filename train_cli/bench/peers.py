"""What others do with the same files and tensors, written here from descriptions of it.

"official" is the arrangement of the VideoLLaMA 3 scripts: ffprobe, then every frame through an
ffmpeg pipe at its native size, PIL for the resize, float32 patches, float32 differences, one dense
mask over all patches for the attention.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from vl3.values import Grid
from vl3.vision import rope2d


def has_ffmpeg() -> bool:
    return bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))


def has_torchcodec() -> bool:
    return importlib.util.find_spec("torchcodec") is not None


def has_torchvision() -> bool:
    """Whether transformers' video processor can be made, which wants a torchvision that loads."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):  # absent, or built for another torch
        return False
    return True


def official_frames(path: Path, fps: float, max_frames: int) -> np.ndarray:
    """frames_TYX3 of ffmpeg's fps filter, thinned to max_frames after all were piped."""
    ask = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries"]
    ask += ["stream=width,height", "-of", "json", str(path)]
    told = subprocess.run(ask, capture_output=True, check=True).stdout
    stream = json.loads(told)["streams"][0]
    command = ["ffmpeg", "-v", "error", "-i", str(path)]
    command += ["-vf", f"fps={fps:g}:round=down", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, stream["height"], stream["width"], 3)
    if len(frames) > max_frames:
        frames = frames[np.linspace(0, len(frames) - 1, max_frames, dtype=int)]
    return frames


def torchcodec_frames(path: Path, picks: Sequence[int]) -> np.ndarray:
    """frames_TYX3 by number, which torchcodec is told: its own way of sampling is another one."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        str(path), seek_mode="approximate", num_ffmpeg_threads=1, dimension_order="NHWC"
    )
    return decoder.get_frames_at(indices=list(picks)).data.numpy()


def transformers_frames(path: Path, picks: Sequence[int]) -> np.ndarray:
    """frames_TYX3 by number through transformers' own loader on PyAV."""
    from transformers.video_utils import load_video

    chosen = list(picks)
    frames, _ = load_video(str(path), backend="pyav", sample_indices_fn=lambda **_: chosen)
    return frames


def official_patches(frames_TYX3: np.ndarray, grid: Grid, patch: int) -> torch.Tensor:
    """pixels_NP float32 in [-1, 1], block order: frame by frame, by transformers' functions.

    The official image processor is written with these four, as all of transformers' older ones.
    """
    from transformers.image_transforms import (
        normalize,
        rescale,
        resize,
        to_channel_dimension_format,
    )

    size, half = (grid.rows * patch, grid.cols * patch), [0.5] * 3
    merge, rows, cols = grid.merge, grid.token_rows, grid.token_cols
    last, first = "channels_last", "channels_first"
    found = []
    for frame in frames_TYX3:
        image = resize(frame, size, resample=Image.Resampling.BICUBIC, input_data_format=last)
        image = rescale(image, 1 / 255, input_data_format=last)
        image = normalize(image, half, half, input_data_format=last)
        found.append(to_channel_dimension_format(image, first, input_channel_dim=last))
    split = np.stack(found).reshape(grid.frames, 3, rows, merge, patch, cols, merge, patch)
    blocks = split.transpose(0, 2, 5, 3, 6, 1, 4, 7)
    return torch.from_numpy(blocks.reshape(grid.num_patches, 3 * patch * patch))


def official_mask(pixels_NP: torch.Tensor, grid: Grid, threshold: float) -> torch.Tensor:
    """keep_M of the released rule in float32."""
    cells = pixels_NP.view(grid.frames, grid.tokens_per_frame, -1)
    change = (cells[1:] - cells[:-1]).abs().mean(dim=-1) * 255
    keep = torch.cat([torch.full_like(change[:1], threshold + 1), change]) > threshold
    keep[keep.sum(dim=1) < 1, 0] = True
    return keep.flatten()


def video_processor(grid: Grid, patch: int, budget_tokens: int, prune: bool):
    """transformers' video processor under the same budget, so that it gives the same grid."""
    from transformers import VideoLlama3VideoProcessor

    token_px = (grid.merge * patch) ** 2
    half = [0.5] * 3
    return VideoLlama3VideoProcessor(
        size={"shortest_edge": 16 * token_px, "longest_edge": budget_tokens * token_px},
        image_mean=half,
        image_std=half,
        patch_size=patch,
        merge_size=grid.merge,
        use_token_compression=prune,
        do_sample_frames=False,
    )


def official_features(vision, pixels_NP: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Features of an encoder of ours computed the official way without flash attention.

    One attention over all patches of the clip, under a dense mask that each layer builds anew. The
    official code hands it three dimensions, for which torch holds all weights at once, 39 GB for 32
    frames of 24 x 32 patches; four dimensions, as here, take torch's fused product.
    """
    x_ND = vision.embed(pixels_NP)
    config = vision.config
    angle_NR = rope2d.angles(
        rope2d.positions(grid, pixels_NP.device), config.head_channels, config.rope_theta
    ).repeat(grid.frames, 1)
    ends = [k * grid.patches_per_frame for k in range(grid.frames + 1)]
    for block in vision.blocks:
        layer, normed = block.attention, block.norm1(x_ND)
        q, k, v = (
            part(normed).unflatten(-1, (-1, layer.head_channels))
            for part in (layer.q, layer.k, layer.v)
        )
        q, k = (rope2d.rotate(x[None], angle_NR)[0] for x in (q, k))
        mask = torch.zeros(1, len(x_ND), len(x_ND), dtype=torch.bool)
        for start, end in pairwise(ends):
            mask[..., start:end, start:end] = True
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, mask[None])[0].transpose(0, 1).flatten(-2)
        x_ND = x_ND + layer.out(mixed)
        x_ND = x_ND + block.mlp(block.norm2(x_ND))
    return vision.norm(x_ND)
