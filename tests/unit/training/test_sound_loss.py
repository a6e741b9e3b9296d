"""What each token of sound is told that it holds, and that an ear learns it."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE
from vl3.sound import SoundTokens
from vl3.toyworld.sounds import VOICE, Heard, Track
from vl3.toyworld.synthesis import lasts_s
from vl3.toyworld.tokenizer import SOUND_WORDS
from vl3.training import remember
from vl3.training.nano.init import add_nano_ear
from vl3.training.nano.sound_loss import (
    NOTHING,
    THINGS,
    WORDS,
    SoundLoss,
    draw_recordings,
    recording_loss,
    token_words,
)
from vl3.training.nano.spatial_loss import word_ids
from vl3.training.recipe import Nano, Rates, Recipe, Start
from vl3.training.setup import auxiliary_losses, prepare
from vl3.weights.ears import add_ear, load_ear


@pytest.fixture(scope="module")
def hearing():
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)
    return model, add_nano_ear(model, VL3Processor.from_pretrained(NANO), load_ear("nano-whisper"))


def test_tokens_are_told_the_sound_that_they_hold():
    beep = Heard("beep", "high", False, 0.21, 0.3, -32.0, 0.5)
    click = Heard("click", None, True, 0.90, 0.3, -12.0, 0.5)
    voice = Heard(VOICE, None, True, 1.2, 0.3, -12.0, 0.5, 7, "slt")
    ends = np.arange(20) * 0.1
    tokens = SoundTokens(spans_s=tuple((float(end), float(end + 0.1)) for end in ends))
    words = token_words(Track((beep, click, voice), None, 1), tokens).tolist()
    nothing, unclear = [NOTHING, IGNORE, IGNORE, IGNORE], [IGNORE] * 4
    said = [THINGS.index("beep"), 1, 1, IGNORE]
    # from 0.21 to 0.51 s: the token from 0.5 s on holds a tenth of what it could
    assert words[:7] == [nothing, nothing, said, said, said, unclear, nothing]
    assert words[9] == [THINGS.index("click"), IGNORE, 0, IGNORE], "it is short, but all there"
    assert words[12] == [THINGS.index(VOICE), IGNORE, 0, 7]
    assert lasts_s(voice) == pytest.approx(0.44, abs=0.05)
    assert words[17] == nothing
    bands = SoundTokens(spans_s=((0.0, 0.1), (0.2, 0.3)), bands=2)
    assert token_words(Track((beep,), None, 1), bands).tolist() == [nothing] * 2 + [said] * 2


def test_each_word_is_one_token_and_begins_as_its_pieces(hearing):
    model, processor = hearing
    ids = word_ids(processor.tokenizer, WORDS)
    assert [len(each) for each in ids] == [8, 2, 2, 10]
    before = VL3Processor.from_pretrained(NANO).tokenizer
    table = model.get_input_embeddings().weight.detach()
    assert len(table) >= len(processor.tokenizer)
    for word in SOUND_WORDS:
        pieces = before(word).input_ids
        (row,) = processor.tokenizer(word).input_ids
        assert len(pieces) > 1
        assert torch.allclose(table[row], table[pieces].mean(dim=0))


def test_recordings_have_a_row_of_words_for_each_token_that_the_ear_makes(hearing):
    model, processor = hearing
    recordings = draw_recordings(random.Random(1), processor.settings.sound, 3)
    with torch.no_grad():
        heard = model.embed_sound(recordings.bank_PAZ, recordings.num_samples_P)
    assert len(heard) == len(recordings.words_K4)
    share = (recordings.words_K4[:, 0] != NOTHING).float().mean()
    assert 0.1 < share < 0.7
    again = draw_recordings(random.Random(1), processor.settings.sound, 3)
    assert torch.equal(again.bank_PAZ, recordings.bank_PAZ)


def test_an_ear_learns_what_its_tokens_hold(hearing):
    """Overfitted to two recordings: every word is right of most tokens, and none was at first."""
    model, processor = hearing
    words = word_ids(processor.tokenizer, WORDS)
    recordings = draw_recordings(random.Random(2), processor.settings.sound, 2)
    parts = [*model.ear.parameters(), *model.audio_connector.parameters()]
    optimizer = torch.optim.AdamW(parts, lr=2e-3)
    losses = []
    for _ in range(40):
        loss, right = recording_loss(model, recordings, words)
        loss.backward()
        assert all(p.grad is not None for p in model.audio_connector.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    assert np.mean(right["token sound"]) > 0.8


def test_the_recipe_gives_a_model_the_words_and_the_loss():
    recipe = Recipe(
        name="heard",
        start=Start(model=str(NANO), ear="nano-whisper"),
        rates=Rates(ear=1e-3, audio_connector=1e-3),
        nano=Nano(sound_words=True, sounds=2),
    )
    model, processor = prepare(recipe, torch.device("cpu"))
    (loss,) = auxiliary_losses(recipe, processor)
    first, again, other = ([*loss.of_step(model, step)] for step in (0, 0, 1))
    assert first[0]["sound"] == again[0]["sound"] != other[0]["sound"]
    first[0]["sound"].backward()
    assert model.ear.encoder.conv1.weight.grad.abs().sum() > 0


def test_an_ear_learns_alone_before_the_first_step(caplog):
    recipe = Recipe(
        name="heard",
        start=Start(model=str(NANO), ear="nano-whisper"),
        rates=Rates(language=1e-3),
        nano=Nano(sound_words=True),
    )
    before, _ = prepare(recipe, torch.device("cpu"))
    taught = replace(recipe, nano=Nano(sound_words=True, ear_steps=2))
    with caplog.at_level("INFO"):
        after, _ = prepare(taught, torch.device("cpu"))
        resumed, _ = prepare(taught, torch.device("cpu"), fresh=False)
    assert "ear step 2 of 2" in caplog.text
    assert caplog.text.count("ear step") == 1  # a run that goes on has its weights
    old, new, third = (model.state_dict() for model in (before, after, resumed))
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"ear", "audio_connector"}
    assert all(torch.equal(old[name], third[name]) for name in old)
    learns = {name: param.requires_grad for name, param in before.named_parameters()}
    assert learns == {name: param.requires_grad for name, param in after.named_parameters()}


def test_without_an_ear_no_steps_of_it():
    recipe = Recipe(
        name="deaf",
        start=Start(model=str(NANO)),
        rates=Rates(language=1e-3),
        nano=Nano(ear_steps=2),
    )
    with pytest.raises(ValueError, match=r"^nano.ear_steps needs a model that hears"):
        prepare(recipe, torch.device("cpu"))


@pytest.mark.parametrize("has_ear", [False, True])
def test_without_words_or_an_ear_it_is_refused_in_a_sentence(has_ear):
    processor = VL3Processor.from_pretrained(NANO)
    if has_ear:
        model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)
        processor = add_ear(model, processor, load_ear("nano-whisper"))
    with pytest.raises(ValueError, match=r"^nano.sounds needs a model that hears and has words"):
        SoundLoss(processor, 2, "seed")


def test_what_was_heard_is_remembered_by_a_model_that_hears():
    def media(hears):
        records = remember.scenes("seed", 9, hears)
        parts = [record.conversations[0][0]["content"][0] for record in records]
        return [type(part[part["type"]]).__name__ for part in parts]

    assert set(media(False)) == {"Clip"}
    assert media(True).count("Clip") == 6
    assert "Film" in media(True)
