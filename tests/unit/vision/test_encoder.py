"""The encoder: frames never see each other, sizes pack, memory grows with frames and no faster."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from vl3.config import VL3VisionConfig
from vl3.values import Grid
from vl3.vision import VisionEncoder, downsample
from vl3.visual_inputs import chunk_grids

CONFIG = VL3VisionConfig(
    hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
)


@pytest.fixture(scope="module")
def encoder() -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(CONFIG).eval()


def pixels(grids, seed=0):
    count = sum(grid.num_patches for grid in grids)
    return torch.randint(
        0, 256, (count, 588), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@torch.no_grad()
def test_changing_a_frame_leaves_the_others_bit_identical(encoder):
    grids = (Grid(frames=3, rows=4, cols=6, merge=2), Grid(frames=1, rows=5, cols=3, merge=1))
    before = pixels(grids)
    after = before.clone()
    after[24:48] = 255 - after[24:48]  # the second frame
    x, y = encoder(before, grids), encoder(after, grids)
    changed = (x != y).any(dim=1)
    assert changed[24:48].all()
    assert not changed[:24].any()
    assert not changed[48:].any()


@torch.no_grad()
def test_packed_sizes_equal_one_by_one(encoder):
    grids = tuple(
        Grid(frames=f, rows=r, cols=c, merge=m)
        for f, r, c, m in [(2, 4, 4, 2), (1, 3, 7, 1), (1, 3, 7, 1), (3, 2, 6, 2)]
    )
    packed_pixels = pixels(grids)
    packed = encoder(packed_pixels, grids)
    sizes = [grid.num_patches for grid in grids]
    apart = [encoder(p, (g,)) for p, g in zip(packed_pixels.split(sizes), grids)]
    # float32, other matrix sizes: rounding only
    assert torch.allclose(packed, torch.cat(apart), atol=1e-5)


@torch.no_grad()
def test_eager_and_fused_attention_agree(encoder):
    grids = (Grid(frames=2, rows=4, cols=6, merge=2),)
    fused = encoder(pixels(grids), grids)
    encoder.set_attn_implementation("eager")
    assert all(block.attention.attend.eager for block in encoder.blocks)
    plain = encoder(pixels(grids), grids)
    encoder.set_attn_implementation("sdpa")
    assert not any(block.attention.attend.eager for block in encoder.blocks)
    assert torch.allclose(fused, plain, atol=1e-5)


@torch.no_grad()
def test_levels_and_normalised_floats_are_the_same_input(encoder):
    grids = (Grid(frames=1, rows=4, cols=4, merge=2),)
    levels = pixels(grids)
    assert torch.equal(encoder(levels, grids), encoder((levels.float() / 255 - 0.5) / 0.5, grids))


@pytest.mark.parametrize("merge", [1, 2, 3, 4])
def test_downsample_equals_bilinear_interpolation_of_the_map(merge):
    grid = Grid(frames=2, rows=2 * merge, cols=3 * merge, merge=merge)
    x_ND = torch.randn(grid.num_patches, 5, generator=torch.Generator().manual_seed(0))
    m, rows, cols = merge, 2, 3
    raster = x_ND.view(2, rows, cols, m, m, 5).permute(0, 5, 1, 3, 2, 4).reshape(2, 5, rows * m, -1)
    small = F.interpolate(raster, size=(rows, cols), mode="bilinear", align_corners=False)
    expected = small.permute(0, 2, 3, 1).reshape(-1, 5)
    assert torch.allclose(downsample(x_ND, (grid,)), expected, atol=1e-6)


def test_chunks_cover_every_frame_once_within_the_limit():
    grids = [Grid(frames=7, rows=4, cols=4, merge=2), Grid(frames=1, rows=10, cols=10, merge=1)]
    chunks = chunk_grids(grids, 40)
    assert sum(g.frames for chunk in chunks for g in chunk) == 8
    assert all(sum(g.num_patches for g in c) <= 40 or len(c) == c[0].frames == 1 for c in chunks)


def test_frames_larger_than_a_chunk_are_taken_one_by_one():
    large, small = Grid(frames=3, rows=8, cols=6, merge=2), Grid(frames=4, rows=2, cols=2, merge=2)
    chunks = chunk_grids([large, small], 10)
    sizes = [sum(grid.num_patches for grid in chunk) for chunk in chunks]
    assert sizes == [48, 48, 48, 8, 8]


PEAK = """
import sys, torch
from vl3.config import VL3VisionConfig
from vl3.values import Grid
from vl3.vision import VisionEncoder
torch.set_num_threads(1)
def peak_kb():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
frames = int(sys.argv[1])
config = VL3VisionConfig(hidden_size=96, intermediate_size=384, num_hidden_layers=2,
                         num_attention_heads=4)
encoder = VisionEncoder(config).eval()
grid = Grid(frames=frames, rows=24, cols=24, merge=2)
pixels = torch.zeros(grid.num_patches, 588, dtype=torch.uint8)
with torch.no_grad():
    encoder(pixels[:576], (Grid(frames=1, rows=24, cols=24, merge=2),))
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = peak_kb()
    encoder(pixels, (grid,))
print(peak_kb() - before)
"""


@pytest.mark.slow
def test_peak_memory_of_the_vision_pass_is_linear_in_frames():
    """8, 16, 32, 64 frames of 576 patches in one pass, each in a fresh process."""
    # Freed blocks go back at once, or the peak would hold what the allocator keeps for later.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    peaks = {
        frames: int(
            subprocess.check_output([sys.executable, "-c", PEAK, str(frames)], env=environment)
        )
        for frames in (8, 16, 32, 64)
    }
    # A straight line through the two ends; what lies between is within 1.2 x of it. A dense mask
    # or quadratic attention memory over 64 x 576 patches would be gigabytes.
    slope = (peaks[64] - peaks[8]) / 56
    for frames, peak in peaks.items():
        line = peaks[8] + slope * (frames - 8)
        assert peak <= 1.2 * line, peaks
    assert peaks[64] <= 1.2 * 8 * peaks[8], peaks
