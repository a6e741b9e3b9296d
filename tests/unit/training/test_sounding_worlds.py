"""Toy worlds with sound as a source of training: what of a recipe makes which records."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from unit.training.test_recipe import whole_recipe

from vl3.bundled import NANO
from vl3.data.preview import preview
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.sound import Sound
from vl3.toyworld.draw import Film
from vl3.toyworld.hearing import HEARD_FAMILIES
from vl3.toyworld.score import muted
from vl3.training.collate import attention_mask, collate
from vl3.training.recipe import Source, World, check
from vl3.training.samples import build, measure
from vl3.training.sources import Scenes, open_source
from vl3.values import Clip
from vl3.weights.ears import add_ear, load_ear

FAMILIES = {"hearing": 1, "sound": 1, "match": 1, "colour": 1}
HEARD = {"seconds": [3, 6], "families": FAMILIES, "hum": 0.5, "voices": 0.2}


def medium(record):
    """The one medium of a record, in the first message of each of its conversations."""
    parts = [conversation[0]["content"][0] for conversation in record.conversations]
    assert all(part == parts[0] for part in parts)
    (part,) = parts[:1]
    return part[part["type"]]


def test_shares_of_silent_clips_clips_with_sound_and_sound_alone():
    scenes = Scenes("heard", World(**HEARD, sound=0.75, alone=1 / 3), seed=1)
    records = [scenes[index] for index in range(200)]
    kinds = Counter(type(medium(record)) for record in records)
    assert kinds[Clip] == pytest.approx(50, abs=18)  # three standard deviations
    assert kinds[Film] == pytest.approx(100, abs=21)
    assert kinds[Sound] == pytest.approx(50, abs=18)
    for record in records:
        part = record.conversations[0][0]["content"][0]
        assert part["type"] == ("audio" if isinstance(medium(record), Sound) else "video")
        assert (record.truth is None) == (part["type"] == "audio")
        if part["type"] == "audio":
            assert set(record.families) <= {*HEARD_FAMILIES}


def test_the_index_decides_every_sample():
    """So a run that goes on hears what it would have heard."""
    world = World(**HEARD, sound=1.0)
    one, again = (Scenes("heard", world, seed=4)[7] for _ in range(2))
    other = Scenes("heard", world, seed=4)[8]
    assert np.array_equal(medium(one).sound.samples_S, medium(again).sound.samples_S)
    assert np.array_equal(medium(one).clip.frames_TYX3, medium(again).clip.frames_TYX3)
    assert one.families == again.families
    assert medium(one).sound.source != medium(other).sound.source


def test_frames_and_sound_count_from_the_first_frame():
    record = Scenes("heard", World(**HEARD, sound=1.0), seed=2)[0]
    film = medium(record)
    assert film.clip.times_s[0] == film.sound.start_s == film.sound.first_frame_s == 0.0
    assert film.sound.duration_s == len(film.clip.times_s) == record.truth.seconds


def test_a_model_that_hears_nothing_learns_from_the_pictures():
    """A Film is a clip for it: the sample is that of the same conversations about the clip."""
    processor = VL3Processor.from_pretrained(NANO)
    record = Scenes("heard", World(**HEARD, sound=1.0), seed=2)[0]
    made = build(record, processor, 2000)
    film = medium(record)
    for conversation in record.conversations:
        conversation[0]["content"][0] = {"type": "video", "video": film.clip}
    seen = build(record, processor, 2000)
    for field in fields(made):
        one, other = getattr(made, field.name), getattr(seen, field.name)
        assert one.equal(other) if hasattr(one, "equal") else one == other
    assert measure(record, processor, 2000).tokens >= len(made.ids_L)


@pytest.fixture(scope="module")
def hearing():
    """The bundled nano with an untrained ear."""
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)
    processor = VL3Processor.from_pretrained(NANO)
    return model, add_ear(model, processor, load_ear("nano-whisper"))


def slots(record, processor):
    """How many tokens of sound a sample has, and whether they stand between its frames."""
    sample = build(record, processor, 2000)
    heard_L = sample.ids_L == processor.audio_token_id
    seen = torch.nonzero(sample.ids_L == processor.image_token_id).flatten()
    between = heard_L[seen.min() : seen.max()].any() if len(seen) else torch.tensor(False)
    return int(heard_L.sum()), bool(between)


def test_a_model_with_an_ear_hears_clips_and_sounds_alone(hearing):
    _, processor = hearing
    film = Scenes("heard", World(**HEARD, sound=1.0), seed=2)[0]
    seconds = film.truth.seconds
    assert slots(film, processor) == (pytest.approx(12.5 * seconds, abs=1), True)
    alone = Scenes("heard", World(**HEARD, sound=1.0, alone=1.0), seed=2)[0]
    length_s = medium(alone).duration_s
    assert slots(alone, processor) == (pytest.approx(12.5 * length_s, abs=1), False)
    silent = Scenes("heard", World(seconds=[3, 6], families={"hearing": 1}), seed=2)[0]
    assert slots(silent, processor) == (0, False)


def test_a_clip_with_sound_is_muted_and_cut_as_a_file_is(hearing):
    _, processor = hearing
    film = medium(Scenes("heard", World(**HEARD, sound=1.0), seed=2)[0])
    question = {"type": "text", "text": "What do you hear?"}

    def heard(**options):
        part = {"type": "video", "video": film, **options}
        made = processor([{"role": "user", "content": [part, question]}])
        return int((made["input_ids"] == processor.audio_token_id).sum())

    whole = heard()
    assert whole == pytest.approx(12.5 * len(film), abs=1)
    assert heard(sound=False) == 0
    assert heard(start=1.0, end=3.0) == pytest.approx(25, abs=1)
    short = Film(film.clip, Sound(samples_S=np.zeros(16_000, np.float32), source="a second"))
    part = {"type": "video", "video": short, "start": 2.0}
    made = processor([{"role": "user", "content": [part, question]}])
    assert not (made["input_ids"] == processor.audio_token_id).any()


def test_a_preview_says_what_is_seen_and_what_is_heard(hearing):
    _, processor = hearing
    film = Scenes("heard", World(**HEARD, sound=1.0), seed=2)[0]
    shown = preview(film, film.id, processor, 2000)
    assert [(each.file, each.count) for each in shown.media] == [
        (medium(film).clip.source, len(medium(film)))
    ]
    alone = Scenes("heard", World(**HEARD, sound=1.0, alone=1.0), seed=2)[0]
    assert preview(alone, alone.id, processor, 2000).media == ()
    both = alone.conversations[0][0]["content"][0], film.conversations[0][0]["content"][0]
    asked = [{"role": "user", "content": [*both, {"type": "text", "text": "What?"}]}]
    shown = preview(replace(film, conversations=(asked,)), "both", processor, 2000)
    assert [each.file for each in shown.media] == [medium(film).clip.source]
    (pieces,) = shown.conversations
    ids = processor(asked)["input_ids"][0].tolist()
    heard = sum(piece.count for piece in pieces if piece.heard)
    seen = sum(piece.count for piece in pieces if piece.visual)
    assert heard == ids.count(processor.audio_token_id) > 50
    assert seen == ids.count(processor.image_token_id) > 16


def test_sound_decides_what_is_learned(hearing):
    """Every kind of record in one pass; another sound gives another loss, the same one the same."""
    model, processor = hearing
    scenes = Scenes("heard", World(**HEARD, sound=0.7, alone=0.4, questions=2), seed=6)
    records = [scenes[index] for index in range(6)]
    assert {type(medium(record)) for record in records} == {Clip, Film, Sound}

    def loss(records):
        samples = [build(record, processor, 2000) for record in records]
        part = collate(samples, processor.tokenizer.pad_token_id, 588)
        inputs = dict(part.inputs)
        mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), model.dtype)
        with torch.no_grad():
            return float(model(**inputs, attention_mask=mask, use_cache=False).loss)

    first = loss(records)
    assert loss(records) == first
    for record in records:
        for conversation in record.conversations:
            part = conversation[0]["content"][0]
            part[part["type"]] = muted(part[part["type"]])
    assert abs(loss(records) - first) > 1e-4


def test_a_world_whose_questions_are_never_settled_says_so():
    scenes = Scenes("mute", World(seconds=[3, 4], families={"spoken": 1}, sound=1.0), seed=1)
    with pytest.raises(ValueError, match="'mute' asks what its scenes never settle"):
        scenes[0]
    source = Source(name="mute", world=scenes.world, samples=4)
    with pytest.raises(ValueError, match="'mute' asks what its scenes never settle"):
        open_source(source, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sound": 1.0}, "data.own.world.sound needs clips: give data.own.world.seconds"),
        ({"sounds": [3, 1]}, "sounds is the least and the most - got 3 and 1; swap them"),
        ({"sound": 1.5}, "data.own.world.sound is a number from 0 to 1 - got 1.5"),
        ({"families": {"sounding": 1}}, "did you mean sound?"),
        ({"families": {"sound": 1}}, "asks nothing of its clips without sound"),
        ({"families": {"sound": 1}, "sound": 0.5, "seconds": [2, 3]}, "of its clips without sound"),
        ({"sound": 1.0, "alone": 0.5, "seconds": [2, 3]}, "of its sounds without picture"),
        (
            {"sound": 1.0, "alone": 0.5, "seconds": [2, 3], "families": {"match": 1}},
            "name a family like hearing as well",
        ),
    ],
)
def test_a_world_that_cannot_be_is_refused_in_a_sentence(changes, words):
    recipe = whole_recipe()
    for name, value in changes.items():
        setattr(recipe.data[0].world, name, value)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        check(recipe)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"sound": 1.0, "seconds": [2, 3], "families": {"sound": 1}},
        {"sound": 0.5, "seconds": [2, 3], "families": {"any_sound": 1}},
        {"sound": 1.0, "alone": 1.0, "seconds": [2, 3], "families": {"hearing": 1, "colour": 1}},
        {"sound": 0.5, "seconds": [2, 3], "families": {"match": 1, "colour": 1}},
    ],
)
def test_a_world_that_can_be_is_taken(changes):
    recipe = whole_recipe()
    for name, value in changes.items():
        setattr(recipe.data[0].world, name, value)
    check(recipe)
