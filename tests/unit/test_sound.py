"""Sound through the whole model: messages, prompts, caches, answers, generate() and training."""

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from sounds import tone, write_film, write_sound

import vl3
from vl3 import audio
from vl3.data.records import BadSample, Record
from vl3.families.layouts import LayoutError
from vl3.inference import heard as heard_module
from vl3.inference.encoded_video import slot_embeds
from vl3.inference.heard import EncodedSound
from vl3.processor import VL3Processor
from vl3.sound import RATE_HZ, SoundRuns, SoundTokens
from vl3.training.collate import collate
from vl3.training.samples import build, measure
from vl3.weights.ears import NANO, add_ear, load_ear
from vl3.weights.export import export

SHORT = {"max_new_tokens": 4}
LOW, HIGH = tone(3, RATE_HZ, 300)[0], tone(3, RATE_HZ, 3000)[0]


@pytest.fixture(scope="module")
def studio(hearing_folder):
    return vl3.load(hearing_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A low and a high sound, films with each of them, and one without."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, samples in (("low", LOW), ("high", HIGH)):
        write_sound(folder / f"{name}.wav", samples[None], RATE_HZ)
        write_film(folder / f"{name}.mp4", [(0.0, samples[None])], RATE_HZ, seconds=3)
    write_film(folder / "silent.mp4", [], seconds=3)
    return folder


def asks(*parts, text="What happens?"):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def film(path, **more):
    return {"type": "video", "video": str(path), **more}


def heard(source, **more):
    return {"type": "audio", "audio": source, **more}


def part_of(opened):
    """A part of a message with what a studio opened."""
    kind = "audio" if isinstance(opened, EncodedSound) else "video"
    return {"type": kind, kind: opened}


def recorded(name, conversations):
    return Record(id=name, dataset="sounds", conversations=tuple(conversations))


def inputs(processor, *parts, **options):
    return processor(messages=asks(*parts), add_generation_prompt=True, **options)


def logits(studio, *parts, **options):
    with torch.no_grad():
        return studio.model(**inputs(studio.processor, *parts, **options)).logits[0, -1]


# what is heard


def test_an_answer_depends_on_the_sound_and_on_nothing_of_it_when_muted(studio, files):
    low, high = (logits(studio, film(files / name)) for name in ("low.mp4", "high.mp4"))
    silent = logits(studio, film(files / "silent.mp4"))
    assert (low - high).abs().max() > 0.1
    assert (low - silent).abs().max() > 0.1
    for muted in (
        logits(studio, film(files / "low.mp4"), sound=False),
        logits(studio, film(files / "low.mp4", sound=False)),
    ):
        assert torch.equal(muted, silent)  # the pictures are equal
    assert not torch.equal(
        logits(studio, heard((LOW, RATE_HZ))), logits(studio, heard((HIGH, RATE_HZ)))
    )


def test_the_sound_of_a_film_stands_between_its_frames(studio, files):
    found = studio.processor.plan(asks(film(files / "low.mp4", fps=1)))
    (slots,) = found.slots
    assert slots.times_s == (0.0, 1.0, 2.0)
    before, first, second, last = slots.sounds
    assert (before, first, second) == (0, 13, 12)  # 12.5 tokens a second
    assert 12 <= last <= 14  # aac ends with a frame of its own
    rendered = inputs(studio.processor, film(files / "low.mp4", fps=1))
    ids = rendered["input_ids"][0].tolist()
    assert ids.count(studio.model.config.audio_token_id) == sum(slots.sounds)


@pytest.mark.parametrize(
    ("order", "times_s", "counts"),
    [
        ("interleave", (0.0, 1.0, 2.0, 3.0), (0, 2, 2, 2, 2)),
        ("interleave", (1.0, 1.5), (2, 1, 5)),
        ("chunk", (0.0, 1.0, 2.0, 3.0), (0, 0, 4, 0, 4)),
        ("append", (0.0, 1.0, 2.0, 3.0), (0, 0, 0, 0, 8)),
        ("append", (), (8,)),
    ],
)
def test_where_sound_stands(order, times_s, counts):
    tokens = SoundTokens(spans_s=tuple((i / 2, i / 2 + 0.5) for i in range(8)))
    assert SoundRuns(tokens=tokens, order=order, chunk_s=2.0)(times_s) == counts


def test_the_order_of_a_model_is_that_of_its_settings(studio, files):
    settings = studio.processor.settings
    counts = {}
    for order in ("interleave", "chunk", "append"):
        chosen = replace(settings, sound=replace(settings.sound, order=order))
        (slots,) = studio.processor.plan(asks(film(files / "low.mp4", fps=1)), chosen).slots
        counts[order] = slots.sounds
    assert counts["append"][:3] == (0, 0, 0)
    assert counts["chunk"][:3] == (0, 0, 25)
    assert len({sum(each) for each in counts.values()}) == 1


def test_sound_keeps_within_its_budget(studio, files):
    settings = studio.processor.settings
    small = replace(settings, sound=replace(settings.sound, tokens=10))
    found = studio.processor.plan(asks(heard(str(files / "low.wav"))), small)
    assert (found.sounds[0].pool, found.sound_tokens) == (4, 10)
    spans = found.sounds[0].tokens.spans_s
    assert spans[0] == pytest.approx((0.0, 0.32))
    assert spans[-1][1] == pytest.approx(3.0)


# one sound through every door


@pytest.mark.parametrize("name", ["low.wav", "low.mp4"])
def test_a_sound_is_the_same_through_every_door(studio, files, name):
    part = heard(str(files / name)) if name.endswith("wav") else film(files / name)
    tensors = inputs(studio.processor, part)
    reply = studio.reply(asks(part), **SHORT)
    with_system = studio.processor(
        messages=asks(part), add_generation_prompt=True, add_system_prompt=True
    )
    assert list(reply.prompt_ids) == with_system["input_ids"][0].tolist()
    medium = studio.open(str(files / name))
    with torch.no_grad():
        embeds = slot_embeds(studio.model, medium)
        sound = studio.model.embed_sound(
            **{key: tensors[key] for key in tensors if key.startswith(("input_f", "feat", "sound"))}
        )
    is_slot = torch.isin(tensors["input_ids"][0], torch.tensor(studio.model.config.slot_token_ids))
    is_sound = tensors["input_ids"][0][is_slot] == studio.model.config.audio_token_id
    torch.testing.assert_close(embeds[is_sound], sound, rtol=1e-5, atol=1e-5)
    record = recorded("1", [[*asks(part), {"role": "assistant", "content": "So."}]])
    sample = build(record, studio.processor, 400)
    length = int(is_slot.nonzero().max())
    assert sample.ids_L[:length].tolist() == tensors["input_ids"][0][:length].tolist()
    assert torch.equal(sample.sound["input_features"], tensors["input_features"])
    assert measure(record, studio.processor, 400).tokens >= len(sample.ids_L)  # before pruning


SHAPES = {
    "a path": lambda path: {"type": "audio", "audio": str(path)},
    "path": lambda path: {"type": "audio", "path": path},
    "no type": lambda path: {"audio": str(path)},
    "url": lambda path: {"type": "audio_url", "audio_url": {"url": path.as_uri()}},
    "bytes": lambda path: {"type": "audio", "audio": path.read_bytes()},
    "OpenAI": lambda path: {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(path.read_bytes()).decode(), "format": "wav"},
    },
    "samples": lambda path: {"type": "audio", "audio": (audio.read(path).samples_S, 16000)},
    "a Sound": lambda path: {"type": "audio", "audio": audio.read(path)},
    "datasets": lambda path: {
        "type": "audio",
        "audio": {"array": audio.read(path).samples_S, "sampling_rate": 16000, "path": "x.wav"},
    },
    "tensor": lambda path: {
        "type": "audio",
        "audio": torch.from_numpy(audio.read(path).samples_S),
        "sampling_rate": 16000,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_sound_is_read(studio, files, shape):
    usual = inputs(studio.processor, heard(str(files / "low.wav")))
    given = inputs(studio.processor, SHAPES[shape](files / "low.wav"))
    assert torch.equal(given["input_ids"], usual["input_ids"])
    assert torch.equal(given["input_features"], usual["input_features"])


REFUSED = [
    ({"type": "audio"}, "a part of type audio without audio"),
    ({"type": "audio", "audio": "https://x.org/a.wav"}, "is a web address"),
    ({"type": "audio", "audio": "gone.wav"}, "There is no file named gone.wav"),
    ({"type": "audio", "audio": np.zeros(99, np.float32)}, "samples come with one rate"),
    ({"type": "audio", "audio": [0.1, 0.2]}, "samples of sound are an array with its rate"),
    ({"type": "audio", "audio": (LOW, -1)}, "sampling_rate is a number of samples a second above"),
    ({"type": "audio", "audio": (LOW[:0], 16000)}, "a sound is an array of samples"),
    ({"type": "audio", "audio": (LOW, 16000), "start": 9}, "no sound lies between start 9 s"),
    ({"type": "audio", "audio": (LOW, 16000), "fps": 1}, "'fps' beside an audio is not used"),
    ({"type": "audio", "audio": 7}, "the source of audio is a path"),
    ({"type": "video", "video": "a.mp4", "sound": "no"}, "sound is True or False"),
]


@pytest.mark.parametrize(("part", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_no_sound_is_refused_in_one_sentence(studio, part, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        inputs(studio.processor, part)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_an_ear_says_so(tiny_folder, files):
    deaf = vl3.load(tiny_folder)
    with pytest.raises(ValueError, match="sound is not read by this model"):
        deaf.reply(asks(heard(str(files / "low.wav"))))
    with pytest.raises(ValueError, match="has no ear; leave sound out"):
        deaf.reply(asks(film(files / "low.mp4")), sound=True)
    reply = deaf.reply(asks(film(files / "low.mp4")), **SHORT)  # its pictures are seen as ever
    assert (reply.ledger.sound_tokens, reply.seen[0].sound) == (0, None)
    with pytest.raises(ValueError, match="this model has no ear, so it takes no input_features"):
        deaf.model(input_ids=torch.zeros(1, 1).long(), input_features=torch.zeros(1, 9, 80))


# answers


def test_sound_is_heard_once_and_found_again(studio, files):
    first = studio.reply(asks(film(files / "low.mp4")), **SHORT)
    second = studio.reply(asks(film(files / "low.mp4"), text="And then?"), **SHORT)
    assert first.ledger.hear_s > 0
    assert second.ledger.hear_s == 0
    assert second.ledger.reused_tokens > second.ledger.sound_tokens > 30
    studio.release()
    cold = studio.reply(asks(film(files / "low.mp4"), text="And then?"), **SHORT)
    assert cold.token_ids == second.token_ids


def test_two_sounds_of_one_length_are_two(studio, files):
    """The prefix of keys and values, and what is kept of a sound, know what was heard."""
    parts = [heard((LOW, RATE_HZ)), heard((HIGH, RATE_HZ))]
    alone = []
    for part in parts:
        studio.release()
        alone.append(studio.reply(asks(part), max_new_tokens=8).token_ids)
    assert alone[0] != alone[1]
    studio.release()
    assert [studio.reply(asks(part), max_new_tokens=8).token_ids for part in parts] == alone
    studio.release()
    films = [
        film(files / "low.mp4"),
        film(files / "low.mp4", sound=False),
        film(files / "high.mp4"),
    ]
    told = [studio.reply(asks(part), max_new_tokens=8) for part in films]
    for part, reply in zip(films, told):
        studio.release()
        assert studio.reply(asks(part), max_new_tokens=8).token_ids == reply.token_ids


def test_another_ear_hears_anew(studio, files):
    before = studio.reply(asks(heard((LOW, RATE_HZ))), max_new_tokens=8)
    weight = studio.model.ear.encoder.conv1.weight
    with torch.no_grad():
        weight.mul_(-1)
        after = studio.reply(asks(heard((LOW, RATE_HZ))), max_new_tokens=8)
        weight.mul_(-1)
    again = studio.reply(asks(heard((LOW, RATE_HZ))), max_new_tokens=8)
    assert after.ledger.hear_s > 0
    assert after.token_ids != before.token_ids == again.token_ids


def other_ear(studio):
    """The model's ear with one layer turned round, for a while."""
    weight = studio.model.ear.encoder.conv1.weight

    @contextmanager
    def turned():
        with torch.no_grad():
            weight.mul_(-1)
            try:
                yield
            finally:
                weight.mul_(-1)

    return turned()


@pytest.mark.parametrize("name", ["low.wav", "low.mp4"])
def test_what_was_opened_is_heard_anew_by_another_ear(studio, files, name):
    """Not what the ear before it left: opened before, and of an answer that is looked into."""
    opened = studio.open(str(files / name))
    before = "".join(studio.ask(opened, "What?", max_new_tokens=8))
    reply = studio.reply(asks(part_of(opened)), **SHORT)
    with other_ear(studio):
        anew = "".join(studio.ask(opened, "What?", max_new_tokens=8))
        fresh = "".join(studio.ask(str(files / name), "What?", max_new_tokens=8, reuse=False))
        assert anew == fresh != before
        assert "by the model as it is now" in studio.attention(reply).notes[0]
    assert "".join(studio.ask(opened, "What?", max_new_tokens=8)) == before


@pytest.mark.parametrize("name", ["low.wav", "low.mp4"])
def test_features_of_a_sound_that_are_handed_over_are_what_is_heard(studio, files, name):
    opened = studio.open(str(files / name))
    sound = opened if name.endswith("wav") else opened.sound
    changed = replace(sound, features_KD=sound.features_KD.roll(1, 0) * -2)
    medium = changed if name.endswith("wav") else replace(opened, sound=changed)
    before = "".join(studio.ask(opened, "What?", max_new_tokens=8))
    reply = studio.reply(asks(part_of(medium)), max_new_tokens=8)
    assert reply.text != before
    assert any("features" in note and "handed over" in note for note in reply.notes)
    assert np.isfinite(studio.attention(reply).weight_IHQL).all()
    assert "".join(studio.ask(opened, "What?", max_new_tokens=8)) == before
    sound.features_KD.mul_(-3)  # in place: of what is kept, too
    assert "".join(studio.ask(opened, "What?", max_new_tokens=8)) != before
    again = studio.open(str(files / name))
    assert "".join(studio.ask(again, "What?", max_new_tokens=8)) == before


def test_nobody_holds_the_model_between_two_pieces(studio, tmp_path, monkeypatch):
    path = write_sound(tmp_path / "long.wav", np.concatenate([LOW, HIGH, LOW])[None], RATE_HZ)
    busy, pool = [], heard_module.pool_steps

    def watched(*given):
        busy.append(studio.engine.is_busy)
        return pool(*given)

    monkeypatch.setattr(heard_module, "pool_steps", watched)
    studio.open(str(path))
    assert len(busy) > 4
    assert not any(busy)


def test_a_stop_is_noticed_between_the_layers_of_an_ear(studio, files):
    stop, layers = threading.Event(), studio.model.ear.encoder.layers
    hook = layers[0].register_forward_hook(lambda *_: stop.set())
    ran = []
    other = layers[1].register_forward_hook(lambda *_: ran.append(1))
    try:
        reply = studio.reply(asks(heard((LOW, RATE_HZ))), stop=stop, **SHORT)
    finally:
        hook.remove()
        other.remove()
    assert reply.stopped
    assert not ran


def test_a_sound_that_was_opened_is_asked_about(studio, files):
    sound = studio.open(str(files / "low.wav"))
    asked = [
        "".join(studio.ask(source, "What?", **SHORT))
        for source in (sound, str(files / "low.wav"), (LOW, RATE_HZ), audio.read(files / "low.wav"))
    ]
    assert asked[0] == asked[1] == asked[3]
    assert studio.open(str(files / "low.wav"), start=1, end=2).tokens.num_tokens in (12, 13)
    both = studio.reply(asks(heard(sound), film(files / "high.mp4")), **SHORT)
    assert [seen.sound.tokens.num_tokens > 30 for seen in both.seen] == [True, True]
    assert both.seen[0].kept_per_step == ()
    muted = studio.reply(asks(heard(sound)), sound=False, **SHORT)
    assert muted.ledger.sound_tokens == 0
    assert "Sound is switched off, so nothing of it was heard." in muted.notes


def test_a_film_that_was_opened_is_muted_by_the_question(studio, files):
    opened = studio.open(str(files / "low.mp4"))
    heard_, muted = (
        "".join(studio.ask(opened, "What?", max_new_tokens=8, sound=sound))
        for sound in (None, False)
    )
    silent = "".join(studio.ask(str(files / "silent.mp4"), "What?", max_new_tokens=8))
    assert muted == silent != heard_
    assert studio.open(str(files / "low.mp4"), sound=False).sound is None


def test_a_film_without_sound_says_so(studio, files):
    reply = studio.reply(asks(film(files / "silent.mp4")), **SHORT)
    assert "The video has no sound." in reply.notes
    assert reply.ledger.sound_tokens == 0


def test_a_long_sound_is_heard_in_pieces(studio, tmp_path):
    rows = np.concatenate([LOW, HIGH, LOW, HIGH])[None]  # six pieces of this ear
    path = write_sound(tmp_path / "long.wav", rows, RATE_HZ)
    whole = inputs(studio.processor, heard(str(path)))
    assert whole["sound_pieces"].tolist() == [6]
    with torch.no_grad():
        names = ("input_features", "feature_lengths", "sound_pieces", "sound_pools")
        features = studio.model.embed_sound(**{name: whole[name] for name in names})
        sound = studio.open(str(path))
        streamed = studio.model.project_sound(sound.features_KD)
    torch.testing.assert_close(streamed, features, rtol=1e-5, atol=1e-5)
    assert sound.tokens.num_tokens == len(features) == 150


@pytest.mark.parametrize("tokens", [150, 100, 37, 10])
def test_pieces_are_joined_over_their_edges(studio, tmp_path, tokens):
    path = write_sound(tmp_path / "long.wav", np.concatenate([LOW, HIGH, LOW, HIGH])[None], RATE_HZ)
    settings = studio.processor.settings
    small = replace(settings, sound=replace(settings.sound, tokens=tokens))
    processor = VL3Processor(
        studio.processor.tokenizer,
        small,
        image_token_id=studio.processor.image_token_id,
        audio_token_id=studio.processor.audio_token_id,
    )
    whole = inputs(processor, heard(str(path)))
    slots = int((whole["input_ids"] == studio.model.config.audio_token_id).sum())
    with torch.no_grad():
        logits = studio.model(**whole).logits  # raises unless slots and tokens agree
    assert tokens / 2 < slots <= tokens
    assert logits.isfinite().all()


def test_looks_at_an_answer_with_sound(studio, files):
    reply = studio.reply(asks(film(files / "low.mp4"), heard((HIGH, RATE_HZ))), **SHORT)
    look = studio.attention(reply)
    assert look.weight_IHQL.shape[-1] == len(reply.prompt_ids) + len(reply.token_ids) - 1
    kinds = [piece.kind for piece in studio.pieces(reply)]
    assert kinds.count("sound") == sum(len(seen.sound.runs) for seen in reply.seen)
    positions = [
        position
        for seen in reply.seen
        for first, count in seen.sound.runs
        for position in range(first, first + count)
    ]
    audio_id = studio.model.config.audio_token_id
    assert positions == [i for i, token in enumerate(reply.prompt_ids) if token == audio_id]
    assert look.sound_K.tolist() == positions


@pytest.mark.parametrize("source", ["language", "rollout", "relevancy"])
def test_every_word_shares_its_attention_between_sound_picture_and_words(studio, files, source):
    reply = studio.reply(asks(film(files / "low.mp4"), heard((HIGH, RATE_HZ))), **SHORT)
    look = studio.attention(reply, tokens=[0], source=source)
    (split,) = look.split_IHQ3[0, 0]
    assert split.sum() == pytest.approx(1, abs=1e-12)
    assert (split > 0).all()
    row = look.weight_IHQL[0, 0, 0].astype(float)
    apart = [row[look.sound_K].sum(), row[look.slot_K].sum()]
    apart.append(np.delete(row, [*look.sound_K, *look.slot_K]).sum())
    np.testing.assert_allclose(split, np.array(apart) / sum(apart), atol=1e-6)
    by_kind = look.sound_IHQK.sum(), look.visual_IHQK.sum()
    assert abs(by_kind[0] - by_kind[1]) > 1e-3  # so that a swap of the two would be seen
    muted = studio.attention(studio.reply(asks(film(files / "low.mp4")), sound=False, **SHORT))
    assert (muted.split_IHQ3[..., 0] == 0).all()
    assert muted.sound_IHQK.shape[-1] == 0


@pytest.mark.parametrize("source", ["language", "relevancy"])
def test_an_answer_may_write_the_tokens_of_slots(studio, files, source):
    reply = studio.reply(asks(film(files / "low.mp4")), **SHORT)
    config = studio.model.config
    written = (config.audio_token_id, config.image_token_id, reply.token_ids[0])
    look = studio.attention(replace(reply, token_ids=written), tokens=[2], source=source)
    assert look.weight_IHQL.shape[-1] == len(reply.prompt_ids) + 2
    assert look.split_IHQ3.sum() == pytest.approx(1)
    assert look.sound_IHQK.shape[-1] == reply.ledger.sound_tokens


@pytest.mark.parametrize("opened", [False, True])
def test_without_the_picture_only_what_frames_show_is_gone(studio, files, opened):
    source = studio.open(str(files / "low.mp4")) if opened else str(files / "low.mp4")
    part = {"type": "video", "video": source}
    whole, blind = studio.reply(asks(part), max_new_tokens=8), None
    blind = studio.without("picture", asks(part), max_new_tokens=8)
    assert blind.prompt_ids == whole.prompt_ids
    assert blind.text != whole.text
    assert blind.ledger.sound_tokens == whole.ledger.sound_tokens > 30
    assert blind.notes == ("Every frame was grey, so nothing of it was seen.",)
    assert (blind.settings["picture"], "picture" in whole.settings) == (False, False)
    (video,), (shown,) = studio.videos(blind), studio.videos(whole)
    grey = replace(shown.clip, frames_TYX3=np.full_like(shown.clip.frames_TYX3, 128))
    expected = studio.open(grey).features_MD  # every frame through the encoder
    torch.testing.assert_close(video.features_MD, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shown.features_MD, expected, atol=1e-2)
    again = studio.reply(asks(part), max_new_tokens=8)  # and it is seen as before
    assert again.token_ids == whole.token_ids
    assert studio.attention(blind).weight_IHQL.shape == studio.attention(whole).weight_IHQL.shape
    muted = studio.without("sound", asks(part), max_new_tokens=8)
    assert muted.token_ids == studio.reply(asks(part), sound=False, max_new_tokens=8).token_ids


def test_what_is_left_out_is_one_of_two(studio, files):
    with pytest.raises(ValueError, match="what is one of sound, picture"):
        studio.without("smell", asks(film(files / "low.mp4")))
    with pytest.raises(ValueError, match="picture is True or False"):
        studio.reply(asks(film(files / "low.mp4")), picture="no")


# generate


@pytest.mark.parametrize("way", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {}])
def test_a_batch_says_what_each_of_it_says(studio, files, way):
    conversations = [
        asks(film(files / "low.mp4")),
        asks(heard((HIGH, RATE_HZ)), text="And?"),
        asks(text="Hi"),
    ]
    model, processor = studio.model, studio.processor
    options = {"max_new_tokens": 5, "do_sample": False, **way}
    batch = processor(messages=conversations, add_generation_prompt=True)
    together = model.generate(**batch, **options)
    per = way.get("num_return_sequences", 1)
    for index, conversation in enumerate(conversations):
        one = processor(messages=conversation, add_generation_prompt=True)
        alone = model.generate(**one, **options)
        length, start = one["input_ids"].shape[1], batch["input_ids"].shape[1]
        assert torch.equal(
            together[index * per : (index + 1) * per, start:][:, : alone.shape[1] - length],
            alone[:, length:],
        )


def test_a_prompt_with_another_number_of_sounds_is_refused(studio):
    tensors = inputs(studio.processor, heard((LOW, RATE_HZ)))
    tensors["feature_lengths"] = tensors["feature_lengths"] // 2
    with pytest.raises(ValueError, match="slots"):
        studio.model(**tensors)


# checkpoints


def test_a_hearing_checkpoint_says_what_it_said(studio, tmp_path, files):
    export(studio.model, studio.processor, tmp_path, kind="own")
    again = vl3.load(tmp_path)
    assert again.processor.settings == studio.processor.settings or (
        again.processor.settings.sound.to_dict() == studio.processor.settings.sound.to_dict()
    )
    part = film(files / "low.mp4")
    assert torch.equal(logits(again, part), logits(studio, part))
    for kind in ("official", "native"):
        with pytest.raises(LayoutError, match="has no ear, which this model has"):
            export(studio.model, studio.processor, tmp_path / kind, kind=kind)


@pytest.mark.parametrize("kind", NANO)
def test_a_model_gets_an_ear(tiny_folder, files, kind):
    studio = vl3.load(tiny_folder)
    before = logits(studio, film(files / "low.mp4"))
    rows = studio.model.config.text_config.vocab_size
    processor = add_ear(studio.model, studio.processor, load_ear(kind))
    muted = processor(
        messages=asks(film(files / "low.mp4")), add_generation_prompt=True, sound=False
    )
    with torch.no_grad():
        after = studio.model(**muted).logits[0, -1]
        heard_ = studio.model(**inputs(processor, film(files / "low.mp4"))).logits[0, -1]
    torch.testing.assert_close(after[:rows], before)
    assert not torch.equal(heard_[:rows], before)
    with pytest.raises(ValueError, match="has an ear already"):
        add_ear(studio.model, processor, load_ear(kind))


# training


def test_samples_with_sound_are_learned_together(studio, files):
    parts = [[film(files / "low.mp4")], [heard((HIGH, RATE_HZ))], []]
    records = [
        recorded(str(i), [[*asks(*own), {"role": "assistant", "content": "So it is."}]])
        for i, own in enumerate(parts)
    ]
    processor, model = studio.processor, studio.model
    samples = [build(record, processor, 400) for record in records]
    packed = collate(samples, 0, 588)
    assert packed.inputs["sound_pieces"].tolist() == [2, 2]
    total = 0.0
    for sample in samples:
        one = {k: v for k, v in collate([sample], 0, 588).inputs.items() if "_BL" not in k}
        with torch.no_grad():
            total += float(model(**one, skip_logits=True).losses_K.sum())
    # the samples of a row are kept apart by the trainer's mask; here each has a row of its own
    assert np.isfinite(total)
    model.zero_grad()
    (with_film,) = [collate([sample], 0, 588) for sample in samples[:1]]
    loss = model(**{k: v for k, v in with_film.inputs.items() if "_BL" not in k}).loss
    loss.backward()
    assert model.ear.encoder.conv1.weight.grad.abs().sum() > 0
    assert model.audio_connector.readout[0].weight.grad.abs().sum() > 0
    model.zero_grad()


def test_a_row_with_sound_for_a_model_without_an_ear_is_a_bad_sample(tiny_processor):
    record = recorded("7", [asks({"type": "audio", "audio": "a.wav"})])
    with pytest.raises(BadSample, match=r"a\.wav: sound is not read by this model"):
        build(record, tiny_processor, 400)


def test_settings_of_sound_are_written_as_they_are(studio, hearing_folder):
    written = json.loads((hearing_folder / "processor_config.json").read_text())
    assert written["sound"]["ear"]["model_type"] == "vl3_whisper"
    assert written["audio_token_id"] == studio.model.config.audio_token_id
    with pytest.raises(ValueError, match="order of sound is one of interleave, chunk, append"):
        replace(studio.processor.settings.sound, order="before")
