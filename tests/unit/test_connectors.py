"""A connector that joins two frames and 2 x 2 cells, from its name in the config to every view.

Odd sizes throughout: 5 frames of 3 x 5 cells become 3 steps of 2 x 3 tokens.
"""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from clips import noise_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import Joining
from transformers import AutoModelForCausalLM

import vl3
from vl3.connectors import MLPConnector, base, connector_class
from vl3.data.records import Record
from vl3.families.layouts import LayoutError
from vl3.families.settings import ProcessorSettings
from vl3.inference import replay
from vl3.inference.asking import TooLong
from vl3.inference.memory import need, visual_slots
from vl3.interpret.capture import embedded
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.settings import PruneSettings
from vl3.training.collate import collate
from vl3.training.samples import build, measure
from vl3.values import Grid, TokenGrid
from vl3.vision.token_map import token_layout
from vl3.viz import attention as attention_view
from vl3.viz import export, figures, positions, run
from vl3.viz.pack import packed
from vl3.weights.assemble import assemble
from vl3.weights.export import export as export_model

FRAMES, ROWS, COLS = 5, 3, 5
STEPS, DOWN, ACROSS = 3, 2, 3
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def studio(joining_folder):
    return vl3.load(joining_folder)


@pytest.fixture(scope="module")
def film():
    return noise_clip(frames=FRAMES, size=(ROWS * 28, COLS * 28))


@pytest.fixture(scope="module")
def picture():
    return replace(noise_clip(1, frames=1, size=(70, 42)), times_s=None)  # 5 x 3 cells, merge 1


def asks(*media, question="What happens?"):
    parts = [
        {"type": kind, kind: medium}
        for medium in media
        for kind in ["image" if getattr(medium, "times_s", ()) is None else "video"]
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


@pytest.fixture(scope="module")
def both(studio, film, picture):
    """A reply about the film, the picture and the film once more."""
    return studio.reply(asks(film, picture, film), **SHORT)


# what it says


def grids():
    sizes = st.integers(1, 7)
    return st.builds(
        lambda t, r, c, m: Grid(frames=t, rows=r * m, cols=c * m, merge=m),
        sizes,
        sizes,
        sizes,
        st.integers(1, 2),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(grids(), min_size=1, max_size=3))
def test_every_cell_lies_in_the_one_token_that_is_made_of_it(found):
    made = [Joining.token_grid(grid) for grid in found]
    keep = np.ones(sum(grid.num_tokens for grid in found), bool)
    times = [[0.5 * t for t in range(grid.frames)] for grid in found]
    sizes = [(grid.rows * 10, grid.cols * 10) for grid in found]
    layout = token_layout(made, keep, times, sizes)
    halves = [(-(-g.frames // 2), -(-g.token_rows // 2), -(-g.token_cols // 2)) for g in found]
    assert [each.shape for each in made] == halves
    assert len(layout) == sum(t * r * c for t, r, c in halves)
    for clip, grid in enumerate(found):
        for (t, r, c), slot in np.ndenumerate(layout.slots[clip]):
            assert layout.clip_K[slot] == clip
            assert layout.frames_K2[slot, 0] <= t < layout.frames_K2[slot, 1]
            x, y = (c + 0.5) * 10 * grid.merge, (r + 0.5) * 10 * grid.merge
            left, top, right, bottom = layout.box_K4[slot]
            assert (left < x < right, top < y < bottom) == (True, True)
            assert layout.slot_at(clip, t, x, y) == slot
            first_s, last_s = layout.times_s_K2[slot]
            assert first_s <= 0.5 * t <= last_s <= first_s + 0.5
        # in slot order: steps, then rows, then columns
        numbers = layout.slots[clip][::2, ::2, ::2].ravel()
        assert numbers.tolist() == list(range(numbers[0], numbers[0] + len(numbers)))


def test_frames_of_one_token_get_its_value_and_count_it_once():
    grid = Grid(frames=FRAMES, rows=ROWS, cols=COLS, merge=1)
    layout = token_layout(
        [Joining.token_grid(grid)], np.ones(75), [range(FRAMES)], [(ROWS * 7, COLS * 7)]
    )
    (painted,) = layout.paint(np.arange(18.0))
    assert (painted[0] == painted[1]).all()
    assert (painted[2] == painted[3]).all()
    assert (painted[0, :2, :2] == 0).all()
    assert (painted[4, 2, 4], painted[4, 0, 0]) == (17, 12)
    (sums,) = layout.by_frame(np.arange(18.0))
    assert sums.tolist() == [15, 15, 51, 51, 87]
    # of the whole token: 5 x 3 cells are no whole blocks, so the last are smaller
    assert layout.box_K4[5].tolist() == [28, 14, 35, 21]


def test_a_token_for_each_cell_is_what_the_mlp_says():
    grid = Grid(frames=2, rows=4, cols=6, merge=2)
    assert connector_class("mlp2x_gelu") is connector_class("linear") is MLPConnector
    assert MLPConnector.token_grid(grid) == TokenGrid.of_cells(grid)
    assert TokenGrid.of_cells(grid).shape == (2, 2, 3)


def test_padding_has_tokens_that_stand_for_no_frame():
    """As a connector that pads time makes them."""
    grid = Grid(frames=1, rows=2, cols=2, merge=1)
    padded = TokenGrid(grid=grid, frames=((0, 0), (0, 1), (1, 1)), rows=((0, 2),), cols=((0, 2),))
    layout = token_layout([padded], np.ones(4), [[3.0]], [(8, 8)])
    assert layout.frames_K2.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert np.isnan(layout.times_s_K2).tolist() == [[True] * 2, [False] * 2, [True] * 2]
    assert (layout.slots[0] == 1).all()


@pytest.mark.parametrize(
    "frames", [(), ((0, 3),), ((1, 2), (0, 1)), ((0, 2), (1, 2)), ((-1, 1),), ((1, 0),)]
)
def test_spans_that_overlap_or_leave_the_grid_are_refused(frames):
    grid = Grid(frames=2, rows=1, cols=1, merge=1)
    with pytest.raises(ValueError, match="frames of a token grid are spans"):
        TokenGrid(grid=grid, frames=frames, rows=((0, 1),), cols=((0, 1),))


# the model


def test_the_name_in_the_config_builds_it_and_a_checkpoint_brings_it_back(
    joining_folder, studio, film
):
    assert isinstance(studio.model.connector, Joining)
    assert json.loads((joining_folder / "config.json").read_text())["connector"] == "joining"
    again = VL3ForConditionalGeneration.from_pretrained(joining_folder)
    assert isinstance(again.connector, Joining)
    processor = VL3Processor.from_pretrained(joining_folder)
    assert (processor.settings.connector, processor.settings.prune) == ("joining", None)
    inputs = processor(asks(film))
    with torch.no_grad():
        one, other = again(**inputs).logits, studio.model(**inputs).logits
    assert torch.equal(one, other)


def test_a_processor_of_an_older_folder_asks_the_config(joining_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((joining_folder / name).read_bytes())
    raw = json.loads((joining_folder / "processor_config.json").read_text())
    del raw["connector"]
    (tmp_path / "processor_config.json").write_text(json.dumps(raw))
    assert VL3Processor.from_pretrained(tmp_path).settings.connector == "joining"
    raw["prune"] = {"mode": "rlt"}
    (tmp_path / "processor_config.json").write_text(json.dumps(raw))
    with pytest.raises(LayoutError, match="cannot be used: nothing is pruned with this model"):
        VL3Processor.from_pretrained(tmp_path)


def test_a_name_that_nobody_registered_is_refused(joining_folder, monkeypatch):
    monkeypatch.delitem(base._CLASSES, "joining")
    with pytest.raises(LayoutError, match=r"register.*got 'joining'"):
        vl3.load(joining_folder)
    with pytest.raises(ValueError, match="or one that you register"):
        ProcessorSettings(connector="joining", prune=None)


def test_tokens_are_made_of_the_whole_grid(studio, film, picture):
    """The model's tokens are the convolution at each place, of what the encoder gives."""
    inputs = studio.processor(asks(film, picture))
    grid_thw, merges = inputs["grid_thw"], inputs["merge_sizes"]
    sizes = (inputs["pixel_values"], grid_thw, merges)
    model = studio.model
    with torch.no_grad():
        got = model.embed_visual(*sizes, inputs["keep_mask"])
        cells = model.encode_vision(*sizes)
        assert torch.equal(got, model.embed_visual(*sizes))
        assert torch.equal(got[:0], model.embed_visual(*sizes, torch.empty(0).long()))
    assert len(got) == STEPS * DOWN * ACROSS + 1 * 3 * 2
    join = model.connector.join
    film_TRCD = cells[: FRAMES * ROWS * COLS].view(FRAMES, ROWS, COLS, -1)
    slot = 0
    for t in range(0, FRAMES, 2):
        for r in range(0, ROWS, 2):
            for c in range(0, COLS, 2):
                block = film_TRCD[t : t + 2, r : r + 2, c : c + 2]
                weight = join.weight[:, :, : block.shape[0], : block.shape[1], : block.shape[2]]
                made = torch.einsum("trcd,edtrc->e", block, weight) + join.bias
                assert torch.allclose(got[slot], made, atol=1e-4)
                slot += 1


def test_slots_that_do_not_fit_and_cells_left_out_are_refused(studio, film):
    inputs = dict(studio.processor(asks(film)))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    at = int((ids[0] == studio.model.config.image_token_id).nonzero()[0])
    rest = [i for i in range(ids.shape[1]) if i != at]
    fewer = inputs | {"input_ids": ids[:, rest], "attention_mask": mask[:, rest]}
    with pytest.raises(ValueError, match="17 visual slots but 18 visual"):
        studio.model(**fewer)
    kept = inputs["keep_mask"].clone()
    kept[3] = False
    with pytest.raises(ValueError, match="joins neighbouring patches and frames, so none can"):
        studio.model(**inputs | {"keep_mask": kept})
    with pytest.raises(ValueError, match="joins neighbouring"):
        studio.model(**inputs | {"keep_mask": torch.arange(75).flip(0)})
    with pytest.raises(ValueError, match="pass the grids"):
        studio.model.project(torch.zeros(75, 48))


# a chat


def test_a_step_of_two_frames_is_written_as_one_frame_at_the_time_of_its_first(studio, film):
    reply = studio.reply(asks(film), **SHORT)
    stamps = [f"Time {film.times_s[t]:.1f}s:<image>" for t in (0, 2, 4)]
    assert ",".join(stamps) + "\n" in reply.prompt
    assert sum(token == studio.model.config.image_token_id for token in reply.prompt_ids) == 18
    (seen,) = reply.seen
    assert (seen.kept_per_step, seen.frames) == ((6, 6, 6), ((0, 2), (2, 4), (4, 5)))
    assert (seen.num_tokens, seen.kept_tokens) == (18, 18)
    assert seen.kept_per_frame == (6,) * FRAMES
    ledger = reply.ledger
    assert (ledger.frames, ledger.visual_tokens, ledger.kept_tokens) == (FRAMES, 18, 18)


def test_every_way_to_ask_gives_the_same_answer(studio, film, picture, both):
    messages = asks(film, picture, film)
    assert both.token_ids
    assert studio.reply(messages, **SHORT).token_ids == both.token_ids  # media known by now
    assert studio.reply(messages, reuse=False, **SHORT).token_ids == both.token_ids
    inputs = studio.processor(messages, add_generation_prompt=True, add_system_prompt=True)
    assert inputs["input_ids"][0].tolist() == list(both.prompt_ids)
    made = studio.model.generate(**inputs, do_sample=False, **SHORT)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert tuple(made.tolist())[: len(both.token_ids)] == both.token_ids
    text = studio.processor.apply_chat_template(
        messages, add_generation_prompt=True, add_system_prompt=True
    )
    ids = studio.processor(text=text, images=[picture], videos=[film, film])["input_ids"]
    assert ids[0].tolist() == list(both.prompt_ids)


def test_a_batch_is_answered_as_each_of_its_prompts(studio, film, picture):
    batch = [asks(film, picture), asks(picture)]
    together = studio.processor(batch, add_generation_prompt=True)
    length = together["input_ids"].shape[1]
    found = studio.model.generate(**together, do_sample=False, **SHORT)[:, length:]
    beams = studio.model.generate(**together, do_sample=False, num_beams=2, **SHORT)[:, length:]
    for messages, row, best in zip(batch, found, beams):
        alone = studio.processor(messages, add_generation_prompt=True)
        start = alone["input_ids"].shape[1]
        assert torch.equal(studio.model.generate(**alone, do_sample=False, **SHORT)[0, start:], row)
        one = studio.model.generate(**alone, do_sample=False, num_beams=2, **SHORT)[0, start:]
        assert torch.equal(one, best)


def test_a_second_question_reuses_what_was_encoded(studio, film):
    video = studio.open(film)
    first = "".join(studio.ask(video, "What?", **SHORT))
    history = [*asks(film, question="What?"), {"role": "assistant", "content": first or "Nothing."}]
    messages = [*history, {"role": "user", "content": "And then?"}]
    warm = studio.reply(messages, **SHORT)
    assert (warm.ledger.reused_clips, warm.ledger.encoded_clips) == (1, 0)
    assert warm.token_ids == studio.new_session().reply(messages, **SHORT).token_ids
    assert (video.tokens.shape, video.kept_tokens, len(video.slots)) == ((3, 2, 3), 18, 3)
    other = replace(video, features_MD=torch.zeros_like(video.features_MD))
    changed = studio.reply(asks(other, question="What?"), **SHORT)
    assert changed.seen[0].kept_tokens == 18
    assert "handed over" in changed.notes[0]


def test_nothing_is_pruned_and_whoever_asks_for_it_is_told(studio, film):
    video = studio.open(film)
    assert video.keep.keep_M.all()
    assert studio.card["unpruned"] == (
        "Nothing is pruned with this model: its connector (joining) joins neighbouring patches and "
        "frames, and every token needs all of its own."
    )
    for prune in ({"threshold": 1.0}, PruneSettings()):
        with pytest.raises(ValueError, match=r"^nothing is pruned.*leave prune out"):
            studio.reply(asks(film), prune=prune)
    with pytest.raises(ValueError, match="leave prune out"):
        studio.processor(asks(film), prune=PruneSettings())
    assert studio.reply(asks(film), prune=None, **SHORT).ledger.kept_tokens == 18
    keep_M = video.keep.keep_M.clone()
    keep_M[0] = False
    with pytest.raises(ValueError, match="hand over a mask that keeps every patch"):
        studio.reply(asks(replace(video, keep=replace(video.keep, keep_M=keep_M))))


def test_a_plan_counts_the_tokens_that_will_be(studio, film):
    plan = studio.plan(film)
    assert (plan.num_tokens, plan.grid.num_tokens) == (18, 75)
    long = noise_clip(frames=800, size=(28, 28), still=False)
    with pytest.raises(TooLong, match=r"Lower frames per second, or shorten the clip\.$"):
        studio.reply(asks(long), budget_tokens=100_000)


# training


def conversation(film, answer="A red circle."):
    return [*asks(film), {"role": "assistant", "content": answer}]


def test_a_sample_learns_what_the_model_is_asked(studio, film, picture):
    """Slots and labels of a packed step are those of the processor's own call."""
    processor, model = studio.processor, studio.model
    # the film stands still for a while: equal frames are not left out, each has its place
    still = replace(film, frames_TYX3=film.frames_TYX3[[0, 1, 1, 1, 2]])
    records = [
        Record(id=str(i), dataset="d", conversations=(conversation(medium),))
        for i, medium in enumerate([still, picture])
    ]
    samples = [build(record, processor, 400) for record in records]
    assert [grid.frames for grid in samples[0].grids] == [FRAMES]
    assert measure(records[0], processor, 400).visual == 18
    expected = 0.0
    for record, sample in zip(records, samples):
        called = processor(record.conversations[0], return_labels=True)
        assert called["input_ids"][0].tolist() == sample.ids_L.tolist()
        assert called["labels"][0].tolist() == sample.labels_L.tolist()
        count = int((called["labels"] >= 0).sum())
        expected += float(model(**called).loss.detach()) * count
    batch = collate(samples, 0, 588)
    inputs = {k: v for k, v in batch.inputs.items() if k not in ("sample_BL", "branch_BL")}
    # each sample is a row of its own here, so no mask between samples is wanted
    assert batch.inputs["sample_BL"].shape[0] == 2
    model.zero_grad()
    loss = model(**inputs, attention_mask=(batch.inputs["sample_BL"] >= 0).long()).loss
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected / batch.learned, rel=1e-4)
    assert model.connector.join.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_a_step_without_pictures_reaches_the_connector_with_nothing(studio):
    record = Record(id="text", dataset="d", conversations=(talk_of_text(),))
    batch = collate([build(record, studio.processor, 400)], 0, 588)
    inputs = {k: v for k, v in batch.inputs.items() if k not in ("sample_BL", "branch_BL")}
    studio.model.zero_grad()
    studio.model(**inputs).loss.backward()
    assert (studio.model.connector.join.weight.grad == 0).all()
    studio.model.zero_grad()


def talk_of_text():
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A red circle."}]


# looks inside


def test_a_look_lights_up_both_frames_and_all_cells(studio, film, picture, both):
    look = studio.attention(both)
    assert len(look.cells) == len(look.slot_K) == 18 + 6 + 18
    first, middle, last = look.maps()
    assert first.shape[3:] == last.shape[3:] == (FRAMES, ROWS, COLS)
    assert middle.shape[3:] == (1, 5, 3)
    visual = look.visual_IHQK[0, 0]
    for token, row in enumerate(visual):
        heat = first[0, 0, token]
        assert (heat[0, :2, :2] == row[0]).all()
        assert (heat[1, :2, :2] == row[0]).all()
        assert (heat[2:4, 2, 4] == row[6 + 5]).all()
        assert (last[0, 0, token, 4, 2, 4]) == row[-1]
    whole = studio.attention(both, layers=[0], heads=[1], tokens=[1])
    assert whole.weight_IHQL.sum() == pytest.approx(1, abs=1e-4)
    assert studio.attention(both, source="rollout").maps()[0].shape[3] == FRAMES
    assert studio.attention(both, source="relevancy", tokens=[0]).cells.clip_K.tolist() == (
        [0] * 18 + [1] * 6 + [2] * 18
    )


def test_a_replay_is_the_answer_that_was_given(studio, both):
    """The last row of a replay predicts the words that were written."""
    scene = replay.replay_input(studio._encoded, both)
    with torch.no_grad():
        logits = studio.model(inputs_embeds=embedded(studio.model, scene, scene.ids())).logits[0]
    rows = [scene.row(token) for token in range(len(both.token_ids))]
    assert logits[rows].argmax(-1).tolist() == list(both.token_ids)
    assert [video.tokens.shape for video in studio.videos(both)] == [
        (3, 2, 3),
        (1, 3, 2),
        (3, 2, 3),
    ]


def test_the_encoder_is_asked_in_every_frame_of_a_token(studio, both):
    look = studio.attention(both, source="vision", tokens=[7])  # step 1: frames 2 and 3
    weights = look.visual_IHQK[0, 0, 0]
    assert weights[6:12].sum() == pytest.approx(1, abs=1e-4)
    assert weights.sum() == pytest.approx(weights[6:12].sum())
    assert (weights[6:12] > 0).all()
    alone = studio.attention(both, layers=[1], heads=[0], source="vision", tokens=[7])
    maps = attention_view.maps(alone)
    assert (maps["first"], maps["slots"]) == (6, 6)


def test_what_the_attention_view_gets(studio, both):
    look = studio.attention(both)
    clips = [video.clip for video in studio.videos(both)]
    data = attention_view.data(look, clips)
    assert data["sizes"]["slots"] == 42
    assert data["sizes"]["frame_slots"] == 6
    assert [(m["frames"], m["rows"], m["cols"]) for m in data["media"]] == [
        (5, 3, 5),
        (1, 5, 3),
        (5, 3, 5),
    ]
    slots = np.array(look.cells.slots[0], np.int32)
    assert (slots[0] == slots[1]).all()
    assert data["media"][0]["slots"] == packed(slots)
    _, table = figures.words_by_frame(look)
    shares = table.to_numpy()
    assert np.allclose(shares[:, 0], shares[:, 1])
    assert np.allclose(shares[:, 0], look.visual_IHQK[0, 0, :, :6].sum(axis=1))
    assert np.allclose(shares[:, 4], look.visual_IHQK[0, 0, :, 12:18].sum(axis=1))


def test_positions_are_those_of_the_prompt(studio, both):
    video = studio.videos(both)[2]
    is_slot_L = np.isin(both.prompt_ids, studio.model.config.slot_token_ids)
    places = np.flatnonzero(is_slot_L)[24:]
    spans = [(int(places[6 * step]), 6) for step in range(STEPS)]
    keep_M = video.keep.keep_M.numpy()
    before, after = positions.language(spans, keep_M, video.grid, video.tokens)
    assert before.tolist() == after.tolist() == places.tolist()
    data = positions.data(
        video.grid, 12, spans=spans, keep_M=keep_M, tokens=video.tokens, times_s=video.clip.times_s
    )["language"]
    assert (data["tokens"], data["steps"]) == (6, [0, 0, 1, 1, 2])
    _, table = figures.language(spans, keep_M, video.grid, video.tokens)
    assert table["frame"].tolist() == [1] * 6 + [3] * 6 + [5] * 6
    with pytest.raises(ValueError, match="take both from one prompt"):
        positions.language(spans, keep_M, video.grid)


def test_run_details_say_which_frames_a_run_of_slots_stands_for(studio, both):
    pieces = [piece for piece in studio.pieces(both) if piece.kind == "slots"]
    told = [(piece.clip, piece.frame, piece.frames, piece.tokens) for piece in pieces]
    of_film = [(0, 0, 2, 6), (0, 2, 2, 6), (0, 4, 1, 6)]
    assert told == [*of_film, (1, 0, 1, 6), *[(2, *rest) for _, *rest in of_film]]
    assert [piece.time_s for piece in pieces[:4]] == [0.0, 2.0, 4.0, None]
    texts = "".join(piece.text or "<image>" for piece in studio.pieces(both))
    assert texts == both.prompt
    shown = run.data(both, studio.pieces(both))
    assert shown["kept_tokens"] == 42
    page = export.page(shown, attention_view.data(studio.attention(both), clips_of(studio, both)))
    assert "frames" in page


def clips_of(studio, reply):
    return [video.clip for video in studio.videos(reply)]


# what it costs, and where it goes


def test_the_estimate_counts_what_is_really_kept(studio):
    """Features of all cells, and keys and values of the tokens that are made of them."""
    config = studio.model.config
    session = studio.new_session()
    kept = []
    for frames in (24, 48):
        clip = noise_clip(frames=frames, size=(224, 392), still=False)  # 8 x 14 cells
        session.reply(asks(clip), budget_tokens=50_000, max_new_tokens=1)
        video = session.open(clip, budget_tokens=50_000)
        keys_values = sum(
            2 * layer.keys[..., : session._prefix.ends[-1], :].nbytes
            for layer in session._prefix.cache.layers
        )
        kept.append((video.grid.num_tokens, video.nbytes + keys_values, video.kept_tokens))
    (few, less, _), (many, more, tokens) = kept
    assert (many, tokens) == (48 * 112, 24 * 28)
    estimates = [
        need(config, quantize=None, device="cpu", itemsize=4, tokens=cells).kept
        for cells in (few, many)
    ]
    assert estimates[1] - estimates[0] == pytest.approx(more - less, rel=0.1)
    assert visual_slots(config, many) == pytest.approx(tokens, rel=0.25)
    assert visual_slots(replace_connector(config), many) == many


def replace_connector(config):
    other = type(config).from_dict(config.to_dict())
    other.connector = "mlp2x_gelu"
    return other


def test_layouts_that_have_no_such_connector_refuse_it(studio, tmp_path):
    for layout in ("official", "native"):
        with pytest.raises(LayoutError, match=r"no connector joining.*own layout"):
            export_model(studio.model, studio.processor, tmp_path / layout, layout)
    export_model(studio.model, studio.processor, tmp_path / "own")
    assert isinstance(vl3.load(tmp_path / "own").model.connector, Joining)


def test_a_model_is_assembled_with_it(tiny_folder, tmp_path):
    model = vl3.load(tiny_folder)
    AutoModelForCausalLM.from_config(model.model.config.text_config).save_pretrained(tmp_path)
    model.processor.tokenizer.save_pretrained(tmp_path)
    made, processor = assemble(tiny_folder, tmp_path, connector="joining")
    assert isinstance(made.connector, Joining)
    assert (processor.settings.connector, processor.settings.prune) == ("joining", None)
    assert {field.name for field in fields(processor.settings)} >= {"connector"}
