"""train_cli assemble: a model of parts, or with an ear, as a folder that loads and answers."""

import json

import numpy as np
import pytest
import torch
from language_models import plain_tokenizer, write_language, write_siglip
from transformers import WhisperConfig, WhisperForConditionalGeneration
from unit.audio.test_released_ears import beats_file

import vl3
from train_cli.__main__ import main
from train_cli.assemble import ORDERS
from vl3.families.settings import SOUND_ORDERS
from vl3.sound import RATE_HZ
from vl3.weights.ears import NANO
from vl3.weights.places import NANO_EARS
from vl3.weights.sizes import sizes_of

SOUND = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
PART = {"type": "audio", "audio": (SOUND, RATE_HZ)}
ASKED = [{"role": "user", "content": [PART, {"type": "text", "text": "What is heard?"}]}]


def whisper_folder(folder):
    config = WhisperConfig(
        vocab_size=100,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
        max_source_positions=100,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=1,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["nano-whisper", "nano-beats", "whisper", "beats.pt"])
def test_a_model_gets_an_ear_and_hears(kind, tiny_folder, tmp_path, capsys):
    source = kind
    if kind == "whisper":
        source = str(whisper_folder(tmp_path / "whisper"))
    elif kind == "beats.pt":
        source = str(tmp_path / "beats.pt")
        beats_file(tmp_path / "beats.pt")
    out = tmp_path / "new" / "hears"
    given = ["assemble", "--model", str(tiny_folder), "--ear", source, str(out)]
    assert main([*given, "--sound-order", "append", "--audio-connector", "linear"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == f"writing {out}"
    assert f"{out}: " in said.out
    studio = vl3.load(out)
    model, settings = studio.model, studio.processor.settings
    assert (settings.sound.order, model.config.audio_connector) == ("append", "linear")
    for name in ("ear", "audio_connector"):
        count = sum(weight.numel() for weight in getattr(model, name).parameters())
        assert f"{name:<16}{count:>10,} parameters" in said.out
    assert studio.reply(ASKED, max_new_tokens=2).ledger.sound_tokens > 5
    deaf = vl3.load(tiny_folder).model
    for name, weight in deaf.vision.state_dict().items():
        assert torch.equal(model.vision.state_dict()[name], weight)


def test_nano_gets_an_ear_where_no_model_is_named(tmp_path, capsys):
    assert main(["assemble", "--ear", "nano-whisper", "--json", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    nano = vl3.load().model
    assert told["parameters"]["vision"] == nano.vision.num_parameters()
    assert told["dtype"] == "float16"  # as nano is stored
    assert told["bytes"] == pytest.approx(2 * sum(told["parameters"].values()), rel=0.01)


def test_an_encoder_and_a_language_model_are_joined(tmp_path, capsys):
    vision = write_siglip(tmp_path / "siglip")
    language = write_language(tmp_path / "llama", "llama", plain_tokenizer())
    parts = ["--vision", str(vision), "--language", str(language)]
    out = tmp_path / "out"
    given = ["assemble", *parts, "--connector", "linear", "--ear", "nano-beats", str(out)]
    assert main([*given, "--dtype", "bfloat16", "--seed", "3"]) == 0
    assert "joining siglip and llama" in capsys.readouterr().err
    studio = vl3.load(out)
    assert studio.model.config.connector == "linear"
    assert sizes_of(out).dtype == torch.bfloat16
    assert studio.reply(ASKED, max_new_tokens=2).ledger.sound_tokens > 5
    assert main(["assemble", *parts, str(tmp_path / "deaf")]) == 0
    assert vl3.load(tmp_path / "deaf").model.ear is None


def test_a_seed_makes_the_same_model_again(tiny_folder, tmp_path):
    weights = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        given = ["--model", str(tiny_folder), "--ear", "nano-whisper", "--seed", seed]
        assert main(["assemble", *given, str(tmp_path / name)]) == 0
        model = vl3.load(tmp_path / name).model
        weights.append((model.ear.encoder.conv1.weight, model.audio_connector.readout[0].weight))
    for one, same, other in zip(*weights):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


REFUSED = [
    ([], "name --vision and --language, or an --ear for a model"),
    (["--vision", "a/b"], "--vision and --language go together"),
    (["--vision", "a/b", "--language", "a/b", "--model", "a/b"], "and without --model"),
    (["--ear", ""], "an ear is BEATs' .pt file"),
    (["--ear", "gone.pt"], "nano-whisper or nano-beats - got 'gone.pt'"),
    (["--ear", "x" * 5000], "an ear is BEATs' .pt file"),
    (["--ear", "nano-whisper", "--connector", "linear"], "go with --vision and --language"),
    (["--sound-order", "chunk", "--vision", "a/b", "--language", "a/b"], "go with --ear"),
    (["--ear", "nano-whisper", "--sound-order", "before"], "invalid choice: 'before'"),
    (
        ["--ear", "nano-whisper", "--audio-connector", "stc_connector"],
        "audio_connector is linear or mlpNx_gelu",
    ),
    (["--ear", "nano-whisper", "--model", "gone"], "no folder 'gone'"),
    (["--ear", "nano-whisper", "--seed", "-1"], "--seed is a whole number"),
    (["--ear", "owner/gone", "--offline"], "owner/gone cannot be loaded"),
    (["--ear", "FULL"], "has no config.json"),
    (["--vision", "FULL", "--language", "FULL"], "has no config.json"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_what_cannot_be_put_together_is_one_sentence(given, words, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("words")
    given = [word.replace("FULL", str(tmp_path / "full")) for word in given]
    with pytest.raises(SystemExit) as stopped:
        main(["assemble", *given, str(tmp_path / "out")])
    assert stopped.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(("error: ", "python -m train_cli assemble: error: "))
    assert words in last
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_and_a_model_that_hears_are_refused(
    hearing_folder, tmp_path, capsys
):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("words")
    given = ["assemble", "--model", str(hearing_folder), "--ear", "nano-whisper"]
    for folder, words in ((full, "is not empty"), (tmp_path / "out", "has an ear already")):
        with pytest.raises(SystemExit) as stopped:
            main([*given, str(folder)])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_names_that_are_known_without_torch_are_those_of_the_library():
    assert tuple(NANO) == NANO_EARS
    assert ORDERS == SOUND_ORDERS
