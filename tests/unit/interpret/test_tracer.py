"""Looks into finished answers: equal to eager attention, free of charge for the answer, bounded."""

import copy
import itertools
import threading
import time

import numpy as np
import pytest
import torch
from clips import write_clip
from conftest import tiny_config, wide_awake

import vl3
from vl3.inference import replay
from vl3.interpret import Tracer, capture
from vl3.model import VL3ForConditionalGeneration
from vl3.values import Clip, Reply

SAID = 12


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(scope="module")
def film():
    """Six frames in which only a corner changes, so that most cells are pruned."""
    frames = np.full((6, 112, 112, 3), 70, np.uint8)
    frames[:, 10:60, 30:90] = 200
    for index in range(6):
        frames[index, 56:, 84:] = 40 * index
    return Clip(frames_TYX3=frames, times_s=tuple(0.5 * n for n in range(6)), source="film")


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (1, 56, 56, 3), dtype=np.uint8)
    return Clip(frames_TYX3=pixels, times_s=None, source="picture")


def conversation(film, picture):
    """A film, an answer, then a picture and a film again."""
    return [
        {"role": "user", "content": [{"type": "video", "video": film}, "What happens?"]},
        {"role": "assistant", "content": "A red circle moves right."},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": picture},
                {"type": "video", "video": film},
                "And here?",
            ],
        },
    ]


@pytest.fixture(scope="module")
def reply(studio, film, picture):
    studio.reply(conversation(film, picture)[:1], max_new_tokens=2)  # so that a prefix is reused
    reply = studio.reply(conversation(film, picture), max_new_tokens=SAID)
    assert reply.ledger.reused_tokens > 0
    assert len(reply.token_ids) == SAID
    return reply


@pytest.fixture(scope="module")
def scene(studio, reply):
    return replay.replay_input(studio._encoded, reply)


def eager(model, scene, length=None):
    """Attention of every layer as the eager path returns it, [1, H, L, L] each, and the logits."""
    model = copy.deepcopy(model)
    model.language.config._attn_implementation = "eager"
    embeds = capture.embedded(model, scene, scene.ids()[:length]).detach().requires_grad_()
    output = model(inputs_embeds=embeds, output_attentions=True)
    return output.attentions, output.logits


def test_rows_are_those_of_eager_attention(studio, reply, scene):
    attentions, _ = eager(studio.model, scene)
    expected = torch.stack(attentions)[:, 0].detach().numpy()
    rows = len(reply.prompt_ids) - 1 + np.arange(SAID)
    layers, heads = range(2), range(4)
    got = studio.attention(reply, layers=layers, heads=heads)
    assert got.weight_IHQL.shape == (2, 4, SAID, len(reply.prompt_ids) + SAID - 1)
    assert np.abs(got.weight_IHQL - expected[:, :, rows]).max() < 1e-5
    assert np.abs(got.weight_IHQL.sum(-1) - 1).max() < 1e-5
    assert np.abs(got.weight_IHQL - expected[:, :, rows - 1]).max() > 1e-3  # canary: the row before
    assert np.abs(got.weight_IHQL[:, ::-1] - expected[:, :, rows]).max() > 1e-3
    some = studio.attention(reply, layers=[1, 0], heads=[3], tokens=[5, 2])
    assert np.abs(some.weight_IHQL - expected[[1, 0]][:, [3]][:, :, rows[[5, 2]]]).max() < 1e-5
    mean = studio.attention(reply, tokens=[4])
    assert mean.weight_IHQL.shape[:3] == (1, 1, 1)
    assert np.abs(mean.weight_IHQL[0, 0, 0] - expected[:, :, rows[4]].mean((0, 1))).max() < 1e-5
    share = expected[:, :, rows[4]][..., got.slot_K].sum(-1)
    assert np.abs(mean.share_IHQ[..., 0] - share).max() < 1e-5
    assert np.array_equal(got.to_slot(3), got.weight_IHQL[..., got.slot_K[3]])


def test_word_t_has_the_row_that_predicts_token_t(studio, reply, scene):
    """The replay's logits at that row give the answer's own greedy tokens."""
    _, logits = eager(studio.model, scene)
    predicted = logits[0, [scene.row(t) for t in range(SAID)]].argmax(-1)
    assert tuple(predicted.tolist()) == reply.token_ids


def test_repeated_words_are_told_apart_by_number(studio, reply):
    first = reply.token_ids.index(max(reply.token_ids, key=reply.token_ids.count))
    again = reply.token_ids.index(reply.token_ids[first], first + 1)
    got = studio.attention(reply, tokens=[first, again, first])
    assert got.words[0] == got.words[1]
    assert not np.allclose(got.weight_IHQL[0, 0, 0], got.weight_IHQL[0, 0, 1], atol=1e-4)
    assert np.array_equal(got.weight_IHQL[0, 0, 0], got.weight_IHQL[0, 0, 2])
    assert "".join(studio.attention(reply).words) == reply.text


def test_maps_of_several_media_leave_pruned_cells_empty(studio, reply, film):
    video = studio.open(film)
    assert not video.keep.keep_M.all()
    got = studio.attention(reply, tokens=[0, 1, 2], heads=[1, 3])
    maps = got.maps()
    assert [one.shape[3:] for one in maps] == [(6, 4, 4), (1, 4, 4), (6, 4, 4)]
    kept = video.keep.keep_M.numpy().reshape(6, 4, 4)
    for one in (maps[0], maps[2]):
        assert np.array_equal(~np.isnan(one), np.broadcast_to(kept, one.shape))
    total = sum(np.nansum(one, axis=(3, 4, 5)) for one in maps)
    assert np.allclose(total, got.visual_IHQK.sum(-1), atol=1e-6)
    assert len(got.cells) == reply.ledger.kept_tokens == len(got.slot_K)
    assert np.array_equal(np.unique(got.cells.clip_K), [0, 1, 2])
    slot = got.cells.slot(2, 1, 3, 3)
    assert got.cells.time_s_K[slot] == 0.5
    assert maps[2][0, 1, 2, 1, 3, 3] == got.to_slot(slot)[0, 1, 2]


def test_another_pruning_later_does_not_move_the_map(studio, film):
    ask = [{"role": "user", "content": [{"type": "video", "video": film}, "What?"]}]
    whole = studio.reply(ask, max_new_tokens=3, prune=None)
    studio.reply(ask, max_new_tokens=3)
    (painted,) = studio.attention(whole, tokens=[0]).maps()
    assert not np.isnan(painted).any()


def test_answers_are_bit_identical_with_and_without_looks(studio, reply, film, picture):
    """Logits of every step of a warm conversation, looked into at each turn or not."""

    def run(look):
        other, said = studio.new_session(), []
        hook = other.model.get_output_embeddings().register_forward_hook(
            lambda _module, _inputs, logits: said.append(logits[0, -1].clone())
        )
        turns = conversation(film, picture)
        replies = []
        for count in (1, 3):
            replies.append(other.reply(turns[:count], max_new_tokens=6))
            before = len(said)
            if look:
                other.attention(replies[-1])
                other.attention(replies[-1], source="rollout")
                other.attention(replies[-1], tokens=[1], source="relevancy")
                other.attention(replies[-1], tokens=[1], source="vision")
            del said[before:]
        hook.remove()
        return [one.token_ids for one in replies], said

    texts, logits = run(look=False)
    looked_texts, looked_logits = run(look=True)
    assert texts == looked_texts
    assert len(logits) == len(looked_logits) >= 12
    assert all(torch.equal(a, b) for a, b in zip(logits, looked_logits))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(logits))  # canary
    assert studio.model.language.config._attn_implementation == "sdpa"
    modules = studio.model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(parameter.grad is None for parameter in studio.model.parameters())


def test_rollout_against_the_dense_product(studio, reply, scene):
    attentions, _ = eager(studio.model, scene)
    product = torch.eye(len(scene.ids()))
    for weight in attentions:
        product = (weight[0].mean(0) + torch.eye(len(product))) / 2 @ product
    got = studio.attention(reply, tokens=[0, 7], source="rollout")
    expected = product[[scene.row(0), scene.row(7)]].detach().numpy()
    assert np.abs(got.weight_IHQL[0, 0] - expected).max() < 1e-5
    assert got.share_IHQ.shape == (1, 1, 2)


def test_relevancy_against_dense_matrices_from_autograd(studio, reply, scene):
    token = 4
    attentions, logits = eager(studio.model, scene, scene.row(token) + 1)
    gradients = torch.autograd.grad(logits[0, -1, reply.token_ids[token]], attentions)
    total = torch.eye(scene.row(token) + 1)
    for weight, gradient in zip(attentions, gradients):
        total = total + (weight[0] * gradient[0]).clamp(min=0).mean(0) @ total
    expected = total[-1].detach().numpy().copy()
    expected[-1] = 0
    got = studio.attention(reply, tokens=[token], source="relevancy").weight_IHQL[0, 0, 0]
    assert np.abs(got[: len(expected)] - expected / expected.sum()).max() < 1e-5
    assert not got[len(expected) :].any()
    other = studio.attention(reply, tokens=[token + 1], source="relevancy").weight_IHQL[0, 0, 0]
    assert np.abs(got - other).max() > 1e-3


def test_the_vision_encoder_looks_inside_one_frame(studio, reply, scene, film):
    """One frame encoded again gives what the encoder saw when it ran over the whole clip."""
    video = studio.open(film)
    inputs = []
    attend = studio.model.vision.blocks[1].attention.attend
    hook = attend.register_forward_pre_hook(lambda _module, args: inputs.append(args[:2]))
    pixels = torch.cat([scene.frame(0, number)[0] for number in range(6)])
    with torch.no_grad():
        studio.model.encode_vision(pixels, [[6, 8, 8]], [2])
    hook.remove()
    ((q, k),) = inputs
    patches = slice(3 * 64, 4 * 64)  # of frame 3
    scores = q[patches].transpose(0, 1) @ k[patches].permute(1, 2, 0) * q.shape[-1] ** -0.5
    place = 3 * 4 + 3
    rows = scores.softmax(-1)[2, 4 * place : 4 * place + 4]
    expected = rows.view(4, 16, 4).sum(-1).mean(0).numpy()
    slot = scene.cells.slot(0, 3, 3, 3)
    got = studio.attention(reply, source="vision", tokens=[slot], layers=[1], heads=[2])
    painted = got.maps()[0][0, 0, 0]
    kept = video.keep.keep_M.numpy().reshape(6, 16)[3]
    assert 0 < kept.sum() < 16
    assert np.allclose(painted[3].ravel()[kept], expected[kept], atol=1e-5)
    assert np.isnan(painted[3].ravel()[~kept]).all()
    assert np.nansum(painted) == pytest.approx(expected[kept].sum(), abs=1e-5)  # no other frame
    assert got.share_IHQ[0, 0, 0] == pytest.approx(expected[kept].sum(), abs=1e-5)
    whole = studio.attention(reply, source="vision", tokens=[0])
    assert whole.share_IHQ.shape == (2, 4, 1)
    assert whole.weight_IHQL.sum() == pytest.approx(1, abs=1e-5)  # first frames are never pruned


def test_sliding_windows_as_the_model_has_them(tokenizer, scene):
    changes = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    model = wide_awake(VL3ForConditionalGeneration(tiny_config(tokenizer, **changes)))
    attentions, _ = eager(model, scene)
    got = Tracer(model).look(scene, layers=[0, 1], heads=[0, 3], tokens=[2])
    expected = torch.stack(attentions)[:, 0, [0, 3], scene.row(2)].detach().numpy()
    assert np.abs(got.weight_IHQL[:, :, 0] - expected).max() < 1e-5
    assert (got.weight_IHQL[1] > 0).sum(-1).max() == 7 < (got.weight_IHQL[0] > 0).sum(-1).max()


def test_in_four_bits(tiny_folder, film, picture):
    pytest.importorskip("bitsandbytes")
    studio = vl3.load(tiny_folder, quantize="nf4", dtype="bfloat16")
    reply = studio.reply(conversation(film, picture), max_new_tokens=3)
    got = studio.attention(reply, layers=[1], heads=[0])
    assert got.weight_IHQL.dtype == np.float32
    assert np.abs(got.weight_IHQL.sum(-1) - 1).max() < 1e-5
    relevant = studio.attention(reply, tokens=[1], source="relevancy")
    assert relevant.weight_IHQL.sum() == pytest.approx(1, abs=1e-4)
    again = studio.new_session().reply(conversation(film, picture), max_new_tokens=3)
    assert again.token_ids == reply.token_ids


def test_text_alone_and_a_single_word(studio):
    reply = studio.reply([{"role": "user", "content": "What happens?"}], max_new_tokens=1)
    got = studio.attention(reply)
    assert got.maps() == ()
    assert got.share_IHQ.shape == (2, 4, 1)
    assert not got.share_IHQ.any()
    assert got.weight_IHQL.shape[2:] == (1, len(reply.prompt_ids))
    with pytest.raises(ValueError, match="needs a picture"):
        studio.attention(reply, tokens=[0], source="vision")


def test_memory_is_a_small_part_of_eager_attention_and_stays_bounded(studio, tmp_path):
    """16 frames: what is held, given and computed in one piece, under a tenth of eager's bytes."""
    path = write_clip(tmp_path / "long.mp4", 64, 4, size=(112, 112))
    ask = [{"role": "user", "content": [{"type": "video", "video": {"path": path}}, "What?"]}]
    reply = studio.reply(ask, max_new_tokens=8, prune=None)
    assert reply.ledger.frames == 16
    other = replay.replay_input(studio._encoded, reply)
    attentions, _ = eager(studio.model, other)
    allowed = 0.1 * sum(weight.nbytes for weight in attentions)
    tracer = Tracer(studio.model)
    got = tracer.look(other)
    text = len(other.ids()) - other.first_text_row  # rows that sinks are found in
    rows = 4 * 4 * text * len(other.ids())  # all at once in float32, four heads
    assert tracer.nbytes + got.weight_IHQL.nbytes + rows < allowed
    only = Tracer(studio.model)
    only.look(other, layers=[1], heads=[0], tokens=[0])
    assert set(only._known[other.key].layers) == {1}
    assert only.nbytes < tracer.nbytes * 0.6
    shorter = studio.reply(ask, max_new_tokens=2, prune=None)
    small = Tracer(studio.model, memory_bytes=only.nbytes + 1)
    for one in (reply, shorter):
        small.look(replay.replay_input(studio._encoded, one), layers=[1])
    assert len(small._known) == 1


def test_looks_are_freed_with_the_clips_and_come_back_with_them(studio, film, picture):
    other = studio.new_session()
    reply = other.reply(conversation(film, picture), max_new_tokens=2)
    before = other.cached_bytes
    expected = other.attention(reply)
    assert other.cached_bytes > before
    other.release()
    assert other.cached_bytes == 0
    with pytest.raises(ValueError, match="medium 1 of this reply is no longer in memory"):
        other.attention(reply)
    other.open(film), other.reply(conversation(film, picture), max_new_tokens=1)
    assert np.array_equal(other.attention(reply).weight_IHQL, expected.weight_IHQL)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"source": "heat"}, "source is one of language, rollout"),
        ({"layers": [2]}, "layers are 0 to 1 here - got 2"),
        ({"heads": [-1]}, "heads are 0 to 3 here - got -1"),
        ({"tokens": [SAID]}, f"tokens are 0 to {SAID - 1} here - got {SAID}"),
        ({"tokens": []}, "tokens is empty"),
        ({"source": "rollout", "layers": [0]}, "joins all layers and heads"),
        ({"source": "relevancy"}, "one word at a time"),
        ({"source": "vision"}, "looks from visual tokens"),
        ({"source": "vision", "tokens": [999]}, "tokens are 0 to"),
    ],
)
def test_what_cannot_be_asked_is_said(studio, reply, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        studio.attention(reply, **asked)


def test_what_is_too_large_is_said(studio, reply, monkeypatch):
    monkeypatch.setattr("vl3.interpret.tracer.MOST_BYTES", 1000)
    monkeypatch.setattr("vl3.interpret.relevancy.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="leave out layers or heads for their mean"):
        studio.attention(reply, layers=[0, 1])
    with pytest.raises(ValueError, match="lower max_frames or budget_tokens"):
        studio.attention(reply, tokens=[0], source="relevancy")


def test_a_reply_that_was_stopped_early(studio, film):
    stop = threading.Event()
    stop.set()
    reply = studio.reply([{"role": "user", "content": "What?"}], stop=stop)
    with pytest.raises(ValueError, match="stopped"):
        studio.attention(reply)


def test_a_reply_may_be_looked_into_while_its_stream_is_open(studio, film, picture):
    stream = studio.stream(conversation(film, picture), max_new_tokens=2)
    reply = next(event for event in stream if isinstance(event, Reply))
    assert studio.attention(reply).tokens == (0, 1)
    assert list(stream) == []


def test_one_map_after_the_first_takes_no_pass_of_the_model(studio, reply, monkeypatch):
    """Milliseconds; the bound is a hundred times that, for a machine with other work."""
    studio.attention(reply)
    for name in ("language", "vision"):
        monkeypatch.setattr(capture, name, None)
    spent = []
    for token in range(SAID):
        started = time.perf_counter()
        (map_IHQTYX, *_) = studio.attention(
            reply, layers=[1], heads=[token % 4], tokens=[token]
        ).maps()
        spent.append(time.perf_counter() - started)
        assert np.nanmax(map_IHQTYX) > 0
    assert np.median(spent) < 0.5
