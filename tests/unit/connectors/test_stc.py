"""The connectors of VideoLLaMA 2 against their definition, written out place by place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu, silu

from vl3.connectors import MeanOverTime, connector_class
from vl3.values import Grid
from vl3.vision.token_map import token_layout, token_of_cells

WINDOWS = {
    "stc_connector": ((2, 2, 2), 1),
    "stc_connector_v35": ((2, 2, 2), 0),
    "stp_connector": ((2, 2, 2), 0),
    "spatial_conv": ((1, 2, 2), 1),
    "spatial_pool": ((1, 2, 2), 0),
}
SAME = 12  # as wide as the encoder, which the last two need
GRID = Grid(frames=5, rows=4, cols=7, merge=1)


def built(name: str, ins: int = SAME, outs: int = SAME):
    torch.manual_seed(0)
    found = connector_class(name)(name, ins, outs)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found.eval()


def cells(grid: Grid, width: int = SAME, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        grid.num_tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )


def norm(x_CRW, layer):
    mean = x_CRW.mean(0)
    spread = (((x_CRW - mean) ** 2).mean(0) + 1e-5).sqrt()
    return (x_CRW - mean) / spread * layer.weight[:, None, None] + layer.bias[:, None, None]


def block_by_hand(block, x_CRW):
    """RegNet's bottleneck, a product and a sum at a time."""

    def one(layer, x):  # a 1 x 1 convolution
        return torch.einsum("oi,irw->orw", layer.weight[:, :, 0, 0], x)

    inner = silu(norm(one(block.conv1.conv, x_CRW), block.conv1.bn))
    padded = torch.nn.functional.pad(inner, (1, 1, 1, 1))
    kernel_C33 = block.conv2.conv.weight[:, 0]
    rows, cols = inner.shape[1:]
    around = sum(
        kernel_C33[:, i, j, None, None] * padded[:, i : i + rows, j : j + cols]
        for i in range(3)
        for j in range(3)
    )
    inner = silu(norm(around, block.conv2.bn))
    mean = inner.mean((1, 2))[:, None, None]
    squeezed = silu(one(block.se.fc1, mean) + block.se.fc1.bias[:, None, None])
    inner = inner * (one(block.se.fc2, squeezed) + block.se.fc2.bias[:, None, None]).sigmoid()
    inner = norm(one(block.conv3.conv, inner), block.conv3.bn)
    if hasattr(block, "downsample"):
        x_CRW = norm(one(block.downsample.conv, x_CRW), block.downsample.bn)
    return silu(inner + x_CRW)


def stage_by_hand(stage, x_TCRW):
    for block in stage.children():
        x_TCRW = torch.stack([block_by_hand(block, x_CRW) for x_CRW in x_TCRW])
    return x_TCRW


def tokens_by_hand(connector, x_MD, grid, window, padding):
    """Every window of every place, zeros around: [steps, rows, cols, width]."""
    x_TCRW = x_MD.view(grid.frames, grid.token_rows, grid.token_cols, -1).permute(0, 3, 1, 2)
    x_TCRW = stage_by_hand(connector.s1, x_TCRW)
    x_TCRW = torch.nn.functional.pad(x_TCRW.movedim(1, 0), (padding,) * 6).movedim(0, 1)
    T, C, R, W = x_TCRW.shape
    t, r, w = window
    joined = torch.zeros(T // t, C, R // r, W // w)
    for i, j, k in np.ndindex(T // t, R // r, W // w):
        part = x_TCRW[i * t : i * t + t, :, j * r : j * r + r, k * w : k * w + w]
        if connector.pools:
            joined[i, :, j, k] = part.mean((0, 2, 3))
        else:
            layer = connector.sampler[0]
            joined[i, :, j, k] = torch.einsum("tcrw,octrw->o", part, layer.weight) + layer.bias
    x_TRCD = stage_by_hand(connector.s2, silu(joined)).permute(0, 2, 3, 1)
    first, _, last = connector.readout
    return gelu(x_TRCD @ first.weight.T + first.bias) @ last.weight.T + last.bias


@pytest.mark.parametrize("name", WINDOWS)
@torch.no_grad()
def test_each_token_is_what_its_window_makes(name):
    connector, x_MD = built(name), cells(GRID)
    found = connector(x_MD, (GRID,))
    by_hand = tokens_by_hand(connector, x_MD, GRID, *WINDOWS[name])
    made = connector.token_grid(GRID)
    assert made.shape == by_hand.shape[:3]
    # float32 sums in another order, through eight blocks
    assert torch.allclose(found, by_hand.flatten(0, 2), atol=2e-5)
    # the canary: one value of the first block moved by a thousandth of itself is seen
    weight = next(parameter for parameter in connector.parameters() if parameter.ndim > 1)
    weight.view(-1)[0] += 0.05
    assert not torch.allclose(connector(x_MD, (GRID,)), by_hand.flatten(0, 2), atol=2e-5)


def test_a_change_of_width_has_a_shortcut_of_its_own():
    connector, x_MD = built("stc_connector", ins=8), cells(GRID, 8)
    with torch.no_grad():
        found = connector(x_MD, (GRID,))
        by_hand = tokens_by_hand(connector, x_MD, GRID, (2, 2, 2), 1)
    assert torch.allclose(found, by_hand.flatten(0, 2), atol=2e-5)
    names = set(connector.state_dict())
    assert {"s1.b1.downsample.conv.weight", "s1.b1.se.fc1.bias", "s2.b4.conv3.bn.bias"} <= names
    assert "s1.b2.downsample.conv.weight" not in names
    assert connector.s1.b1.se.fc1.weight.shape[0] == 2  # a quarter of what comes in
    assert connector.s1.b2.se.fc1.weight.shape[0] == 3


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(WINDOWS)),
    *[st.integers(2, 7)] * 3,
    st.integers(1, 2),
)
def test_the_spans_are_the_windows_without_their_padding(name, frames, rows, cols, merge):
    grid = Grid(frames=frames, rows=rows * merge, cols=cols * merge, merge=merge)
    made = connector_class(name).token_grid(grid)
    window, padding = WINDOWS[name]
    sizes = (frames, rows, cols)
    for spans, size, side in zip((made.frames, made.rows, made.cols), sizes, window):
        assert len(spans) == (size + 2 * padding - side) // side + 1
        for number, (first, end) in enumerate(spans):
            covered = range(number * side - padding, number * side - padding + side)
            assert list(range(first, end)) == [place for place in covered if 0 <= place < size]
    # whatever is not in a window is beyond the last
    seen = token_of_cells(made) >= 0
    assert seen.all() == all(
        spans[-1][1] == size for spans, size in zip((made.frames, made.rows, made.cols), sizes)
    )


def test_tokens_of_real_sizes_are_those_of_the_paper_and_of_the_code():
    """facts: 845 and 1521 of CLIP padded, 576 unpadded; 1352 of SigLIP; 1690 of spatial_conv."""
    clip, siglip = {"rows": 24, "cols": 24, "merge": 1}, {"rows": 27, "cols": 27, "merge": 1}
    counted = {
        ("stc_connector", 8, 24): 845,
        ("stc_connector", 16, 24): 1521,
        ("stc_connector_v35", 8, 24): 576,
        ("stc_connector_v35", 16, 27): 1352,
        ("stp_connector", 8, 24): 576,
        ("spatial_conv", 8, 24): 1690,
        ("spatial_pool", 8, 24): 1152,
        ("mean_mlp2x_gelu", 8, 24): 576,
    }
    for (name, frames, side), count in counted.items():
        grid = Grid(frames=frames, **(clip if side == 24 else siglip))
        assert connector_class(name).token_grid(grid).num_tokens == count


def test_a_step_of_padding_stands_for_no_frame():
    made = connector_class("spatial_conv").token_grid(GRID)
    assert made.frames == ((0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 5))
    assert made.rows == ((0, 1), (1, 3), (3, 4))


@pytest.mark.parametrize("name", sorted(WINDOWS))
@torch.no_grad()
def test_a_picture_is_a_film_that_stands_still(name):
    """Told once with copies, or spelled out: the same tokens, and all of the one picture."""
    connector = built(name)
    picture = Grid(frames=1, rows=4, cols=7, merge=1, copies=6)
    x_MD = cells(picture)
    film = Grid(frames=6, rows=4, cols=7, merge=1)
    spelled = connector(x_MD.repeat(6, 1), (film,))
    # a batch of six where there was one of one: sums in another order
    assert torch.allclose(connector(x_MD, (picture,)), spelled, atol=1e-5)
    made, whole = connector.token_grid(picture), connector.token_grid(film)
    assert (made.frames, made.depth) == (((0, 1),), len(whole.frames))
    assert made.num_tokens == whole.num_tokens == len(spelled)


@torch.no_grad()
def test_several_clips_of_several_sizes_are_one_after_the_other():
    connector = built("stc_connector")
    other = Grid(frames=2, rows=6, cols=4, merge=2)
    one, two = cells(GRID), cells(other, seed=2)
    together = connector(torch.cat([one, two]), (GRID, other))
    apart = torch.cat([connector(one, (GRID,)), connector(two, (other,))])
    assert torch.equal(together, apart)


@torch.no_grad()
def test_frames_of_the_mean_are_all_of_the_clip():
    x_MD = cells(GRID)
    mean = x_MD.view(5, 28, SAME).mean(0)
    for name in ("mean_linear", "mean_mlp1x_gelu", "mean_mlp3x_gelu", "mean_identity"):
        connector = built(name)
        assert isinstance(connector, MeanOverTime)
        layers = list(getattr(connector, "layers", connector.children()))
        expected = mean
        for layer in layers:
            expected = (
                gelu(expected)
                if isinstance(layer, torch.nn.GELU)
                else expected @ layer.weight.T + layer.bias
            )
        assert torch.allclose(connector(x_MD, (GRID,)), expected, atol=1e-6)
    made = connector.token_grid(GRID)
    assert (made.frames, made.shape, made.depth) == (((0, 5),), (1, 4, 7), 1)
    assert set(built("mean_linear").state_dict()) == {"linear.weight", "linear.bias"}
    assert set(built("mean_mlp2x_gelu").state_dict()) == {
        f"layers.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")
    }


def test_widths_that_cannot_run_are_refused_in_words():
    for name in ("spatial_conv", "spatial_pool", "mean_identity"):
        with pytest.raises(ValueError, match=r"needs an encoder.*as wide.*got 8 and 12"):
            connector_class(name)(name, 8, 12)


@pytest.mark.parametrize("name", ["stc_connector_v35", "stp_connector"])
def test_one_frame_is_no_pair(name):
    alone = Grid(frames=1, rows=4, cols=4, merge=1)
    with pytest.raises(ValueError, match=r"joins 2 frames into a token, and there is 1; raise max"):
        connector_class(name).token_grid(alone)
    thin = Grid(frames=2, rows=1, cols=4, merge=1)
    with pytest.raises(ValueError, match="joins 2 rows into a token"):
        connector_class(name).token_grid(thin)
    assert connector_class("stc_connector").token_grid(alone).shape == (1, 3, 3)


# what a picture's tokens say together


def test_what_is_seen_of_a_picture_several_times_adds_up_on_it():
    picture = Grid(frames=1, rows=4, cols=4, merge=1, copies=4)
    made = connector_class("stc_connector_v35").token_grid(picture)
    assert (made.depth, made.tokens_per_step, made.num_tokens) == (2, 8, 8)
    layout = token_layout([made], np.ones(16), [None], [(8, 8)])
    assert len(layout) == 8
    assert layout.slots[0][0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert layout.box_K4[0].tolist() == layout.box_K4[4].tolist() == [0, 0, 4, 4]
    values = np.array([1.0, 2, 3, 4, 10, 20, 30, 40])
    (painted,) = layout.paint(values)
    assert painted[0].tolist() == [[11, 11, 22, 22]] * 2 + [[33, 33, 44, 44]] * 2
    assert layout.by_frame(values)[0].tolist() == [110]
    assert layout.folded(values).tolist() == [11, 22, 33, 44, 0, 0, 0, 0]
    assert [layout.first_at(slot) for slot in range(8)] == [0, 1, 2, 3] * 2


def test_a_film_beside_a_picture_keeps_its_values():
    film = connector_class("stc_connector_v35").token_grid(Grid(frames=2, rows=2, cols=2, merge=1))
    picture = connector_class("stc_connector_v35").token_grid(
        Grid(frames=1, rows=2, cols=2, merge=1, copies=4)
    )
    layout = token_layout([picture, film], np.ones(12), [None, (0.0, 1.0)], [(4, 4)] * 2)
    values = np.array([[1.0, 2, 5]])
    assert layout.folded(values).tolist() == [[3, 0, 5]]
    assert layout.first_at(2) == 2
    assert [painted[0, 0].tolist() for painted in layout.paint(values)] == [
        [[3, 3]] * 2,
        [[5, 5]] * 2,
    ]


def test_only_a_picture_has_copies():
    with pytest.raises(ValueError, match="got 2 frames and 3 copies"):
        Grid(frames=2, rows=1, cols=1, merge=1, copies=3)
