"""The data of the attention view: what Studio.attention gave, to the byte, and where it lies."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import vl3
from vl3.values import Clip, Grid, TokenGrid
from vl3.vision.token_map import token_layout
from vl3.viz import attention, export

SIZES = {
    "tokens": 5,
    "slots": 9,
    "frame_slots": 4,
    "layers": 3,
    "heads": 2,
    "vision_layers": 4,
    "vision_heads": 6,
}


def unpacked(text: str, kind) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def weights(maps: dict) -> np.ndarray:
    """What a view reads out of maps: [layers, heads, tokens, slots]."""
    tops, levels = unpacked(maps["tops"], "<f4"), unpacked(maps["levels"], np.uint8)
    shape = [len(maps[name] or [0]) for name in ("layers", "heads", "tokens")]
    restored = attention.restored(tops, levels.reshape(len(tops), maps["slots"]))
    return restored.reshape(*shape, maps["slots"])


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Within half a step of the scale; what is 10 ** DECADES below a map's largest may be 0."""
    least = expected.max(axis=-1, keepdims=True) * 10.0**-attention.DECADES
    step = 10 ** (attention.DECADES / attention.STEPS / 2)
    assert np.all(got <= expected * step * 1.001)
    assert np.all((got * step * 1.001 >= expected) | (expected <= least * step))


@pytest.fixture(scope="module")
def studio():
    return vl3.load()


@pytest.fixture(scope="module")
def film():
    """A square moves over a still ground, so that most cells are pruned."""
    frames = np.full((5, 112, 168, 3), 90, np.uint8)
    for index in range(5):
        frames[index, 30:60, 28 * index : 28 * index + 40] = (220, 40, 40)
    return Clip(frames_TYX3=frames, times_s=tuple(map(float, range(5))), source="film")


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (1, 84, 56, 3), dtype=np.uint8)
    return Clip(frames_TYX3=pixels, times_s=None, source="picture")


def asked_about(studio, *media):
    parts = [{"type": "video", "video": medium} for medium in media]
    ask = [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]
    return studio.reply(ask, max_new_tokens=7)


def seen(studio, *media) -> list[Clip]:
    return [studio.open(medium).clip for medium in media]


def test_the_data_are_the_looks_of_the_reply(studio, film, picture):
    reply = asked_about(studio, film, picture)
    mean = studio.attention(reply)
    data = attention.data(mean, seen(studio, film, picture), vision=(4, 4), token=2)
    json.dumps(data, allow_nan=False)
    assert "".join(data["words"]) == reply.text
    assert data["sizes"]["slots"] == reply.ledger.kept_tokens < reply.ledger.visual_tokens
    assert_close(weights(data["mean"]), mean.visual_IHQK)
    tops, levels = unpacked(data["share"]["tops"], "<f4"), unpacked(data["share"]["levels"], "u1")
    share_QX = attention.restored(tops, levels.reshape(len(tops), -1))
    assert_close(share_QX, mean.share_IHQ.reshape(-1, len(mean.tokens)).T)
    video, image = data["media"]
    assert (video["source"], image["source"]) == ("film", "picture")
    assert image["times_s"] is None
    kept = studio.open(film).keep.keep_M.numpy()
    slots = unpacked(video["slots"], "<i4")
    assert np.array_equal(slots >= 0, kept)
    assert np.array_equal(slots[kept], np.arange(kept.sum()))
    assert unpacked(image["slots"], "<i4")[0] == kept.sum()
    per_frame = (slots >= 0).reshape(video["frames"], -1).sum(axis=1)
    assert data["sizes"]["frame_slots"] == max(*per_frame, image["rows"] * image["cols"])


def test_what_a_view_needs_is_what_it_gets(studio, film):
    reply = asked_about(studio, film)
    sizes = attention.data(studio.attention(reply), seen(studio, film), vision=(4, 4))["sizes"]
    slot = sizes["slots"] - 1

    def answered(source, token):
        need = {"source": source, "token": token, "layer": 1}
        return look(studio.attention(reply, **attention.asked(need, sizes)))

    def look(found):
        return found, attention.maps(found)

    found, maps = answered("language", 3)
    assert (maps["source"], maps["tokens"]) == ("language", [3])
    text = studio.model.config.text_config
    layers, heads = range(text.num_hidden_layers), range(text.num_attention_heads)
    assert (maps["layers"], maps["heads"]) == (list(layers), list(heads))
    assert_close(weights(maps), found.visual_IHQK)
    assert weights(maps).shape == (len(layers), len(heads), 1, sizes["slots"])
    found, maps = answered("rollout", 3)
    assert maps["tokens"] == list(range(sizes["tokens"]))
    assert (maps["layers"], maps["heads"]) == (None, None)
    assert_close(weights(maps), found.visual_IHQK)
    found, maps = answered("relevancy", 3)
    assert maps["tokens"] == [3]
    assert_close(weights(maps), found.visual_IHQK)
    found, maps = answered("vision", slot)
    in_frame = np.flatnonzero(found.cells.frame_K == found.cells.frame_K[slot])
    assert (maps["first"], maps["slots"]) == (in_frame[0], len(in_frame))
    assert maps["slots"] < sizes["slots"]
    assert_close(weights(maps), found.visual_IHQK[..., in_frame])
    assert weights(maps).sum() == pytest.approx(found.visual_IHQK.sum(), rel=0.01)


def test_a_reply_without_a_picture_has_words_and_no_maps(studio):
    mean = studio.attention(asked_about(studio))
    data = attention.data(mean, [])
    assert data["media"] == []
    assert len(data["words"]) == data["sizes"]["tokens"] > 0
    assert (data["sizes"]["slots"], data["mean"]["slots"], data["mean"]["levels"]) == (0, 0, "")
    with pytest.raises(ValueError, match="no such token"):
        attention.asked({"source": "vision", "token": 0, "layer": 0}, data["sizes"])


def test_details_come_along_and_the_page_takes_them(studio, film):
    reply = asked_about(studio, film)
    one = studio.attention(reply, layers=[2], heads=range(4), tokens=[1])
    mean, clips = studio.attention(reply), seen(studio, film)
    data = attention.data(mean, clips, details=[one])
    assert data["details"] == [attention.maps(one)]
    page = export.page(data, title="a clip")
    assert '"view": "attention"' in page


def test_many_maps_stay_small():
    """28 layers x 12 heads x 4 000 visual tokens; sizes do not depend on what is in them."""
    tops, levels = attention.quantised(np.random.default_rng(0).random((28 * 12, 4000)))
    assert tops.nbytes + levels.nbytes < 1.4e6
    sizes = {"tokens": 9, "slots": 4000, "layers": 28, "heads": 12}
    need = {"source": "language", "token": 2, "layer": 5}
    assert attention.asked(need, sizes)["layers"] == list(range(28))
    large = attention.asked(need, sizes | {"slots": 16384})
    assert (large["layers"], large["heads"]) == ([5], list(range(12)))


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(0, 9)),
        elements=st.floats(0, 1, width=32),
    ),
)
def test_levels_are_restored_within_half_a_step(values):
    tops, levels = attention.quantised(values)
    assert levels.dtype == np.uint8
    assert levels.shape == values.shape
    if values.shape[1]:
        normal = np.where(values < 1e-30, 0, values)  # below that float32 has fewer digits
        assert_close(attention.restored(*attention.quantised(normal)), normal)
        assert np.array_equal(tops, values.max(axis=1))
        assert np.all(levels[values == 0] == 0)


def test_small_weights_stay_visible():
    """A linear byte would call everything below 1/510 of the largest 0."""
    values = np.array([[1.0, 1e-2, 1e-3, 1e-4, 2e-5, 1e-7]])
    _, levels = attention.quantised(values)
    assert levels[0].tolist() == [255, 153, 103, 52, 16, 0]


@pytest.mark.parametrize(
    "need",
    [
        {},
        {"source": "mean", "token": 0, "layer": 0},
        {"source": ["language"], "token": 0, "layer": 0},
        {"source": "language", "token": 5, "layer": 0},
        {"source": "language", "token": -1, "layer": 0},
        {"source": "language", "token": True, "layer": 0},
        {"source": "language", "token": "0", "layer": 0},
        {"source": "language", "token": 0, "layer": 3},
        {"source": "language", "token": 0, "layer": 1.0},
        {"source": "language", "token": 0},
        {"source": "vision", "token": 9, "layer": 0},
        {"source": "vision", "token": 8, "layer": 4},
        {"source": "rollout", "token": None},
    ],
)
def test_what_no_view_asks_is_refused(need):
    with pytest.raises(ValueError, match=r"unknown|no such"):
        attention.asked(need, SIZES)


def test_needs_become_arguments_of_a_look():
    vision = {"source": "vision", "token": 8, "layer": 3}
    every = {"source": "vision", "tokens": [8], "layers": [0, 1, 2, 3], "heads": list(range(6))}
    assert attention.asked(vision, SIZES) == every
    assert attention.asked({"source": "rollout", "token": 4, "layer": 0}, SIZES) == {
        "source": "rollout"
    }
    only = {"source": "relevancy", "token": 4}
    assert attention.asked(only, SIZES) == {"source": "relevancy", "tokens": [4]}
    assert attention.refused(only, "too long") == only | {"problem": "too long"}


def test_parts_that_do_not_belong_together_are_refused(studio, film, picture):
    reply = asked_about(studio, film)
    mean, clips = studio.attention(reply), seen(studio, film)
    with pytest.raises(ValueError, match="pass the clip of every video"):
        attention.data(mean, seen(studio, film, picture))
    with pytest.raises(ValueError, match="all tokens"):
        attention.data(studio.attention(reply, tokens=[1]), clips)
    with pytest.raises(ValueError, match="all tokens"):
        attention.data(studio.attention(reply, source="rollout"), clips)
    with pytest.raises(ValueError, match="leave both out"):
        attention.data(studio.attention(reply, layers=[0, 1]), clips)
    with pytest.raises(ValueError, match="are a mean"):
        attention.maps(mean)
    both = studio.attention(reply, source="vision", tokens=[0, 1], layers=[0], heads=[0])
    with pytest.raises(ValueError, match="one visual token"):
        attention.maps(both)


def test_slots_of_a_frame_follow_each_other():
    """Which maps of the vision encoder rest on, for any mask."""
    grids = [Grid(frames=3, rows=2, cols=3, merge=1), Grid(frames=1, rows=4, cols=4, merge=2)]
    rng = np.random.default_rng(3)
    for _ in range(20):
        keep = rng.random(22) < 0.5
        found = token_layout(
            [TokenGrid.of_cells(grid) for grid in grids],
            keep,
            [(0.0, 1.0, 2.0), None],
            [(20, 30), (40, 40)],
        )
        for slot in range(len(found)):
            first, end = attention._frame_of(found, slot)
            same = (found.clip_K == found.clip_K[slot]) & (found.frame_K == found.frame_K[slot])
            assert np.array_equal(np.flatnonzero(same), np.arange(first, end))
