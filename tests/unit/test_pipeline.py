"""One sample through every door: whoever plans, reads, prunes or renders it, gives the same."""

from dataclasses import replace

import pytest
import torch
from clips import write_clip
from PIL import Image

import vl3
from vl3.data.checks import check_length
from vl3.data.preview import preview
from vl3.data.records import Record
from vl3.pipeline import plan, prepare
from vl3.training.samples import build, measure


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(scope="module", params=["video", "image", "both", "text"])
def conversation(request, tmp_path_factory):
    folder, parts = tmp_path_factory.mktemp("doors"), []
    if request.param in ("video", "both"):
        film = write_clip(folder / "film.mp4", 24, 4, size=(80, 112))
        parts.append({"type": "video", "video": {"path": str(film), "fps": 2, "max_frames": 7}})
    if request.param in ("image", "both"):
        Image.effect_noise((90, 60), 80).convert("RGB").save(folder / "noise.png")
        parts.append({"type": "image", "image": str(folder / "noise.png")})
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}
    return [asked, {"role": "assistant", "content": "Nothing."}]


def test_one_sample_is_the_same_through_every_door(studio, conversation):
    processor = studio.processor
    settings = replace(processor.settings, budget_tokens=300)
    called = processor(conversation, budget_tokens=300, return_labels=True)
    planned = processor.plan(conversation, settings)
    prepared = prepare(planned)
    rendered = processor.render(conversation, prepared.slots)
    record = Record(id="one", dataset="doors", conversations=(conversation,))
    sample = build(record, processor, 300)
    shown = preview(record, "doors:1", processor, 300)
    size, _ = check_length(record, processor, settings, 10**6, [])

    ids = called["input_ids"][0].tolist()
    assert ids == rendered.ids == sample.ids_L.tolist()
    assert called["labels"][0].tolist() == rendered.labels == sample.labels_L.tolist()
    assert shown.tokens == len(ids)
    assert shown.learned == sum(label >= 0 for label in rendered.labels)

    slots = sum(token in studio.model.config.slot_token_ids for token in ids)
    assert slots == prepared.num_tokens <= planned.num_tokens == size.visual
    assert size.text + slots == len(ids)
    assert measure(record, processor, 300).tokens == size.text + size.visual
    assert [medium.count for medium in shown.media] == [grid.frames for grid in prepared.grids]
    if prepared.media:
        assert torch.equal(called["pixel_values"], prepared.patches.pixels_NP)
        assert torch.equal(called["keep_mask"], prepared.keep.keep_M)
        kept = [frame.kept for medium in shown.media for frame in medium.frames]
        assert kept == [count for runs in prepared.slots for count in runs.counts]
        tokens = studio.model.embed_visual(
            called["pixel_values"], called["grid_thw"], called["merge_sizes"], called["keep_mask"]
        )
        fresh = [[grid.frames, grid.rows, grid.cols] for grid in sample.grids]
        features = studio.model.encode_vision(
            sample.pixels_NP, fresh, [grid.merge for grid in sample.grids]
        )
        assert torch.allclose(studio.model.project(features[sample.source_K]), tokens, atol=1e-5)


def test_a_studio_reads_one_medium_as_the_processor_does(studio, conversation):
    """Each medium has the budget for itself there, so with one they agree."""
    media = [part for part in conversation[0]["content"] if part["type"] != "text"]
    reply = studio.reply(conversation[:1], max_new_tokens=1)
    inputs = studio.processor(conversation[:1], add_generation_prompt=True, add_system_prompt=True)
    assert len(reply.seen) == len(media)
    if len(media) <= 1:
        assert list(reply.prompt_ids) == inputs["input_ids"][0].tolist()
    for one, part in zip(reply.seen, media):
        alone = prepare(studio.processor.plan([{"role": "user", "content": [part]}]))
        assert [list(one.kept_per_frame)] == alone.keep.kept_per_frame


def test_a_plan_of_nothing_costs_nothing(studio):
    planned = plan([], studio.processor.settings)
    assert (planned.slots, planned.num_tokens, prepare(planned).slots) == ([], 0, [])
