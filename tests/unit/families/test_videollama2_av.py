"""VideoLLaMA 2.1-AV: loaded, heard as it was made of its parts, answered with, written again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sounds import tone, write_film, write_sound
from videollama2_folders import write_release

import vl3
from vl3.audio.official import official_sound
from vl3.families.layouts import LayoutError
from vl3.families.videollama2 import released
from vl3.pipeline import prepare
from vl3.sound import RATE_HZ
from vl3.weights.ears import add_ear, load_ear
from vl3.weights.export import export

SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("av")
    return write_release(tmp / "release", "2.1-7B-16F-AV", tmp)


@pytest.fixture(scope="module")
def studio(release):
    return vl3.load(release.folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    low, high = (tone(4, RATE_HZ, pitch) for pitch in (300, 3000))
    write_film(folder / "low.mp4", [(0.0, low)], RATE_HZ, seconds=4)
    write_film(folder / "high.mp4", [(0.0, high)], RATE_HZ, seconds=4)
    write_film(folder / "silent.mp4", [], seconds=4)
    write_sound(folder / "low.wav", low, RATE_HZ)
    return folder


def asks(*parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]


def film(path, **more):
    return {"type": "video", "video": str(path), **more}


def inputs(studio, *parts, **options):
    return studio.processor(messages=asks(*parts), add_generation_prompt=True, **options)


def test_every_tensor_is_in_its_place(release, studio):
    ear = studio.model.ear.state_dict()
    assert ear.keys() == release.ear.state_dict().keys()
    assert all(torch.equal(ear[name], t) for name, t in release.ear.state_dict().items())
    readout = studio.model.audio_connector.readout.state_dict()
    assert all(torch.equal(readout[name], t) for name, t in release.projector.state_dict().items())
    settings = studio.processor.settings.sound
    assert (settings.order, settings.ear.pool_bands, settings.ear.piece_steps) == ("append", 1, 187)
    assert studio.model.config.audio_token_id != studio.model.config.image_token_id


def test_all_sound_follows_all_frames(studio, files):
    """4 s are 25 steps of 8 bands, a window of 15 ms short of the last."""
    ids = inputs(studio, film(files / "low.mp4"))["input_ids"][0]
    config = studio.model.config
    seen, heard = (ids == config.image_token_id).nonzero(), (ids == config.audio_token_id).nonzero()
    assert len(heard) % 8 == 0
    assert 24 <= len(heard) / 8 <= 26
    assert heard.min() == seen.max() + 1
    assert heard.max() - heard.min() + 1 == len(heard)


@pytest.mark.parametrize("name", ["low.mp4", "high.mp4"])
def test_logits_are_those_of_the_parts(release, studio, files, name):
    tensors = inputs(studio, film(files / name))
    config, ids = studio.model.config, tensors["input_ids"]
    with torch.no_grad():
        found = studio.model(**tensors).logits
        embeds = release.language.get_input_embeddings()(ids)
        visual = studio.model.embed_visual(
            *(tensors[key] for key in ("pixel_values", "grid_thw", "merge_sizes", "keep_mask"))
        )
        bank = tensors["input_features"]
        heard = release.projector(release.ear.tokens(bank)[0])
        embeds[0, ids[0] == config.image_token_id] = visual
        embeds[0, ids[0] == config.audio_token_id] = heard[
            : int((ids == config.audio_token_id).sum())
        ]
        wanted = release.language(inputs_embeds=embeds).logits
        embeds[0, ids[0] == config.audio_token_id] = 0.0
        deaf = release.language(inputs_embeds=embeds).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (deaf - wanted).abs().max() > 1e-2  # what is not heard is seen by the comparison


def test_it_hears_as_it_did_officially(release, studio, files):
    """30 s whatever there is: pieces that overlap, zeros, banks in bfloat16."""
    official = replace(studio.processor.settings, sampling="official")
    planned = studio.processor.plan(asks(film(files / "low.mp4")), official)
    assert planned.sound_tokens == 187 * 8
    (heard,) = prepare(planned).heard
    wanted = official_sound(files / "low.mp4")
    assert torch.equal(heard.banks[0], wanted.bank_AZ)
    with torch.no_grad():
        found = studio.model.embed_sound(torch.stack(heard.banks), heard.lengths)
        told = release.projector(release.ear.tokens(wanted.bank_AZ[None])[0])
    torch.testing.assert_close(found, told, rtol=1e-4, atol=1e-4)


def test_it_answers_about_films_and_sounds(studio, files):
    said = {}
    for name in ("low.mp4", "high.mp4", "silent.mp4", "low.wav"):
        kind = "audio" if name.endswith("wav") else "video"
        reply = studio.reply(asks({"type": kind, kind: str(files / name)}), max_new_tokens=8)
        said[name] = reply.token_ids
        assert (reply.ledger.sound_tokens > 0) == (name != "silent.mp4")
    muted = studio.reply(asks(film(files / "low.mp4")), max_new_tokens=8, sound=False)
    assert muted.token_ids == said["silent.mp4"]
    assert said["low.mp4"] != said["silent.mp4"]
    look = studio.attention(studio.reply(asks(film(files / "low.mp4")), **SHORT))
    assert np.isfinite(look.weight_IHQL).all()


def test_it_goes_out_and_comes_back_equal(release, studio, files, tmp_path):
    for kind in ("own", "official"):
        export(studio.model, studio.processor, tmp_path / kind, kind=kind)
        again = vl3.load(tmp_path / kind)
        with torch.no_grad():
            tensors = inputs(studio, film(files / "low.mp4"))
            found, wanted = again.model(**tensors).logits, studio.model(**tensors).logits
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)  # as it lies in memory
        own = studio.model.state_dict()
        assert all(torch.equal(own[name], t) for name, t in again.model.state_dict().items())
        assert again.processor.settings.sound.to_dict() == studio.processor.settings.sound.to_dict()
    there = load_file(tmp_path / "official" / "model.safetensors")
    first = load_file(release.folder / "model.safetensors")
    assert there.keys() == first.keys()
    assert all(torch.equal(there[name], first[name]) for name in first)


def test_an_ear_of_another_kind_does_not_go_there(release, tmp_path):
    plain = write_release(tmp_path / "plain", "2.1-7B-16F", tmp_path)
    other = vl3.load(plain.folder)
    processor = add_ear(other.model, other.processor, load_ear("nano-whisper"))
    with pytest.raises(LayoutError, match=r"hears by BEATs .* export to the own layout"):
        export(other.model, processor, tmp_path / "out", kind="official")


def test_its_sizes_are_known_by_name():
    config = released("DAMO-NLP-SG/VideoLLaMA2.1-7B-AV")
    assert (config.audio_config.encoder_layers, config.audio_config.width) == (12, 768)
    assert released("DAMO-NLP-SG/VideoLLaMA2.1-7B-16F").audio_config is None
