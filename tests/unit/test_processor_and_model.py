"""Messages to tensors to tokens: counts, batches, padding, pruning, gradients."""

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vl3.families.settings import ProcessorSettings
from vl3.processor import VL3Processor
from vl3.settings import PruneSettings
from vl3.values import Clip


def still_clip(frames=5, size=(84, 112), seed=0, moving=True) -> Clip:
    """A noisy picture that stays, with a block that moves over it."""
    picture = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    pixels = picture.repeat(frames, axis=0)
    if moving:
        for index in range(frames):
            pixels[index, :20, 8 * index : 8 * index + 20] = 255
    return Clip(frames_TYX3=pixels, times_s=tuple(map(float, range(frames))), source="still")


def picture(height=60, width=90, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ask(*parts, question="What?"):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def film(clip):
    return {"type": "video", "video": clip}


def photo(array):
    return {"type": "image", "image": array}


def test_slots_equal_kept_tokens_and_pruning_shortens_the_prompt(tiny_processor):
    pruned = tiny_processor(ask(film(still_clip())))
    whole = tiny_processor(ask(film(still_clip())), prune=None)
    image_id = tiny_processor.slot_ids.image
    assert (pruned["input_ids"] == image_id).sum() == pruned["keep_mask"].sum()
    assert (whole["input_ids"] == image_id).sum() == whole["keep_mask"].numel()
    assert pruned["keep_mask"].sum() < whole["keep_mask"].sum()
    assert pruned["pixel_values"].dtype == torch.uint8


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(20, 90)), max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_any_mix_of_media_fills_exactly_its_slots(tiny_processor, tiny_model, batch):
    conversations = [
        ask(
            *[
                film(still_clip(n, (side, 60))) if moving else photo(picture(side, 50))
                for moving, n, side in media
            ]
        )
        for media in batch
    ]
    inputs = tiny_processor(conversations)
    with torch.no_grad():
        logits = tiny_model(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert torch.isfinite(logits).all()


def test_a_batch_answers_like_its_rows_alone(tiny_processor, tiny_model):
    conversations = [
        ask(film(still_clip(6)), question="What happens in the video?"),
        ask(photo(picture()), film(still_clip(3, (56, 140), seed=4)), question="Which is first?"),
        ask(question="No picture at all."),
    ]
    options = {"max_new_tokens": 6, "do_sample": False}
    inputs = tiny_processor(conversations, add_generation_prompt=True)
    assert inputs["attention_mask"][2, 0] == 0, "padding is on the left"
    together = tiny_model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    for row, conversation in enumerate(conversations):
        one = tiny_processor(conversation, add_generation_prompt=True)
        alone = tiny_model.generate(**one, **options)[0, one["input_ids"].shape[1] :]
        assert together[row, : len(alone)].tolist() == alone.tolist()


def test_every_token_of_a_picture_matters_and_in_its_place(tiny_processor, tiny_model):
    """The canary of the splice: exchanged visual tokens give other logits."""
    inputs = tiny_processor(ask(photo(picture())))
    with torch.no_grad():
        embeds = tiny_model.embed_visual(
            inputs["pixel_values"], inputs["grid_thw"], inputs["merge_sizes"], inputs["keep_mask"]
        )
        ids = inputs["input_ids"]
        right = tiny_model(input_ids=ids, visual_embeds=embeds).logits
        assert torch.equal(right, tiny_model(**inputs).logits)
        wrong = tiny_model(input_ids=ids, visual_embeds=embeds.flip(0)).logits
    assert not torch.allclose(right[0, -1], wrong[0, -1], atol=1e-3)


def test_a_miscount_names_both_numbers(tiny_processor, tiny_model):
    inputs = tiny_processor(ask(film(still_clip())))
    inputs["keep_mask"] = torch.ones_like(inputs["keep_mask"])
    with pytest.raises(ValueError, match=r"\d+ visual slots but \d+ visual tokens"):
        tiny_model(**inputs)


def test_dropping_before_the_connector_equals_dropping_after(tiny_processor, tiny_model):
    inputs = tiny_processor(ask(film(still_clip())))
    keep = inputs["keep_mask"]
    arguments = (inputs["pixel_values"], inputs["grid_thw"], inputs["merge_sizes"])
    with torch.no_grad():
        ours = tiny_model.embed_visual(*arguments, keep)
        official = tiny_model.project(tiny_model.encode_vision(*arguments))[keep]
    assert torch.allclose(ours, official, atol=1e-6)


def test_recording_gradients_changes_no_number_and_reaches_every_part(tiny_processor, tiny_model):
    conversation = [*ask(film(still_clip())), {"role": "assistant", "content": "A circle."}]
    inputs = tiny_processor(conversation, return_labels=True)
    with torch.no_grad():
        quiet = tiny_model(**inputs)
    loud = tiny_model(**inputs)
    # one pass over all patches instead of chunks: rounding only
    assert torch.allclose(quiet.logits, loud.logits, atol=1e-4)
    loud.loss.backward()
    for part in ("vision", "connector", "language"):
        grads = [p.grad for p in getattr(tiny_model, part).parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads), part
        assert any(g.abs().sum() > 0 for g in grads), part
    tiny_model.zero_grad()


def test_a_saved_processor_comes_back_the_same(tiny_folder, tiny_processor):
    loaded = VL3Processor.from_pretrained(tiny_folder)
    assert loaded.settings == tiny_processor.settings
    conversation = ask(film(still_clip()), photo(picture()))
    for name, tensor in tiny_processor(conversation).items():
        assert torch.equal(loaded(conversation)[name], tensor), name


def test_settings_given_at_the_call(tiny_processor):
    strict = tiny_processor(ask(film(still_clip())), prune=PruneSettings(threshold=255.0))
    assert strict["keep_mask"].sum() == strict["keep_mask"].numel() // 5 + 4
    fewer = tiny_processor(ask(photo(picture(400, 400))), budget_tokens=100)
    assert fewer["keep_mask"].numel() <= 100


# Frames that come late in their second, so that other ones are shown at its start and its end.
TICKS = [20 * number + 11 for number in range(50)]

# For each setting of a processor one value that is seen in a prompt of a film and a picture.
CHANGED = {
    "patch": 28,
    "image_merge": 2,
    "video_merge": 1,
    "min_tokens": 40,
    "budget_tokens": 60,
    "frame_tokens": 9,
    "fps": 3.0,
    "max_frames": 2,
    "sampling": "official",
    "prune": None,
    "spread": True,
}
ASKED_OF_THE_CALL = {"system_prompt"}
# tests/unit/test_connectors.py, families/test_videollama2.py and test_sound.py
OF_THE_MODEL = {"connector", "square", "sound"}


def test_no_setting_of_a_processor_is_left_out():
    known = CHANGED.keys() | ASKED_OF_THE_CALL | OF_THE_MODEL
    assert known == {each.name for each in fields(ProcessorSettings)}


@pytest.mark.parametrize("name", CHANGED)
def test_every_setting_of_a_processor_is_used(tiny_processor, tmp_path, name):
    path = write_clip(tmp_path / "film.mp4", 50, times=TICKS, time_base=Fraction(1, 90))
    media = film({"path": str(path)}), photo(picture(120, 180)), photo(picture(28, 42))
    base = replace(
        tiny_processor.settings,
        system_prompt=False,
        prune=PruneSettings(threshold=60.0),
        budget_tokens=300,
        min_tokens=4,
    )
    image_id, found = tiny_processor.slot_ids.image, []
    for chosen in (base, base, replace(base, **{name: CHANGED[name]})):
        processor = VL3Processor(tiny_processor.tokenizer, chosen, image_token_id=image_id)
        inputs = [processor(ask(medium)) for medium in media]
        keys = ("input_ids", "grid_thw", "keep_mask")
        found.append([one[key].tolist() for one in inputs for key in keys])
    assert found[0] == found[1] != found[2]


def test_a_bound_on_each_frame_holds_whatever_the_budget(tiny_processor):
    small = replace(tiny_processor.settings, budget_tokens=10_000, frame_tokens=16)
    processor = VL3Processor(
        tiny_processor.tokenizer, small, image_token_id=tiny_processor.slot_ids.image
    )
    clip = still_clip(5, (400, 400))
    assert tiny_processor(ask(film(clip)))["grid_thw"].tolist() == [[5, 16, 16]]
    assert processor(ask(film(clip)))["grid_thw"].tolist() == [[5, 8, 8]]
    assert processor(ask(film(still_clip(3, (360, 640)))))["grid_thw"].tolist() == [[3, 6, 12]]


def test_pil_images_paths_and_arrays_are_the_same_picture(tiny_processor, tmp_path):
    array = picture(75, 130)
    Image.fromarray(array).save(tmp_path / "picture.png")
    sources = [
        array,
        Image.fromarray(array),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
    ]
    first, *others = [tiny_processor(ask(photo(source))) for source in sources]
    for other in others:
        assert torch.equal(first["pixel_values"], other["pixel_values"])
    assert first["grid_thw"].tolist() == [[1, 5, 9]]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "sound", "sound": "x"}, "text, image, video or audio"),
        ({"type": "video"}, "a part of type video without video; give its path"),
        ({"type": "video", "video": {"fps": 1}}, "has its path under path"),
        ({"type": "video", "video": {"path": "x", "speed": 2}}, "'speed' beside a video is not"),
    ],
)
def test_wrong_parts_are_refused_in_words(tiny_processor, part, words):
    with pytest.raises(ValueError, match=words):
        tiny_processor(ask(part))
