"""Recipes for ears and for VideoLLaMA 2: the numbers of the paper, and each run in small."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from language_models import plain_tokenizer, write_language, write_siglip
from safetensors.torch import load_file
from sounds import tone, write_film, write_sound
from transformers import CLIPVisionConfig, CLIPVisionModel

import vl3
from train_cli.__main__ import main
from train_cli.config import BUNDLED, load_yaml, read_recipe
from vl3.data.readers import open_records
from vl3.prompt import IGNORE
from vl3.sound import RATE_HZ
from vl3.training.samples import build, measure
from vl3.weights.runs import checkpoints

VIDEO = ("vl2_video1_pretraining", "vl2_video2_multitask")
AUDIO = ("vl2_audio1_pretraining", "vl2_audio2_finetuning", "vl2_audio3_joint")
# What learns at which rate, samples of a step, epochs, samples of the mix in thousands.
PAPER = {
    VIDEO[0]: ({"connector": 1e-3}, 1024, 1, 10852.8),
    VIDEO[1]: ({"connector": 2e-5, "language": 2e-5}, 2048, 3, 1354),
    AUDIO[0]: ({"audio_connector": 1e-3}, 1024, 1, 400),
    AUDIO[1]: ({"ear": 2e-5, "audio_connector": 2e-5}, 128, 2, 698),
    AUDIO[2]: (
        {"connector": 2e-5, "language": 2e-5, "ear": 2e-5, "audio_connector": 2e-5},
        128,
        2,
        663.4,
    ),
}
RATES = ("vision", "connector", "language", "ear", "audio_connector", "adapter")


def learning(recipe):
    rates = {name: getattr(recipe.rates, name) for name in RATES}
    return {name: rate for name, rate in rates.items() if rate}


@pytest.mark.parametrize("stage", PAPER)
def test_a_stage_of_videollama_2_has_the_numbers_of_the_paper(stage):
    rates, samples, epochs, thousands = PAPER[stage]
    recipe = read_recipe([stage])
    assert learning(recipe) == rates
    assert (recipe.batch.samples, recipe.epochs) == (samples, epochs)
    assert sum(source.samples for source in recipe.data) / 1000 == pytest.approx(thousands)
    optim = recipe.optim
    assert (optim.kind, optim.schedule, optim.warmup, optim.weight_decay) == (
        "adamw",
        "cosine",
        0.03,
        0.0,
    )
    assert recipe.media.max_frames == 16
    assert recipe.media.visual_tokens == 16 * 27**2  # no frame is left out for want of a budget
    assert all(source.sets for source in recipe.data)
    if stage in AUDIO:
        assert (recipe.media.sound_order, recipe.media.sound_tokens) == ("append", 187 * 8)
    mix = {"av": 2, "video": 1, "audio": 1} if stage == AUDIO[2] else {}
    assert recipe.batch.parts == mix


def test_each_stage_goes_on_from_the_one_before():
    for before, stage in pairwise((*VIDEO, *AUDIO)):
        assert read_recipe([stage]).start.model == f"runs/{before}"
        assert read_recipe([f"{stage},tiny"]).start.model == f"runs/{before}_tiny"
    assert read_recipe(["ear2_joint"]).start.model == "runs/ear1_align"
    first = read_recipe([VIDEO[0]]).start
    assert (first.tower, first.connector) == (True, "stc_connector_v35")


def test_the_ears_of_videollama_3():
    first, second = (read_recipe([name]) for name in ("ear1_align", "ear2_joint"))
    assert learning(first) == {"audio_connector": 1e-3}
    assert first.start.ear == "openai/whisper-small"
    assert learning(second) == {"audio_connector": 2e-5, "adapter": 2e-5}
    assert (second.adapter.rank, second.adapter.alpha, second.adapter.on) == (
        128,
        256,
        ["language"],
    )
    assert second.batch.parts == {"av": 2, "video": 1, "audio": 1}
    few = ["--remember", "0", "--batch.parts", "{}", "--data", "[]", "--data.own.path", "x.jsonl"]
    own = read_recipe(["ear2_joint", "lora", *few])  # as its head says
    assert (own.adapter.rank, own.rates.audio_connector, own.batch.samples) == (32, 2e-5, 8)


def test_the_twin_of_every_stage_is_there():
    parts = load_yaml((BUNDLED / "tiny.yaml").read_text(encoding="utf-8"))["after"]
    assert list(parts) == [*VIDEO, *AUDIO]
    for stage in parts:
        recipe, whole = read_recipe([f"{stage},tiny"]), read_recipe([stage])
        assert set(learning(recipe)) == set(learning(whole))
        assert recipe.name == f"{stage}_tiny"
        assert recipe.batch.parts == whole.batch.parts


# run in small


def row(number, question, answer, **media):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": number, **media, "conversations": turns}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eight rows of each kind: videos with sound, videos, sounds, words."""
    folder = tmp_path_factory.mktemp("rows")
    kinds = {"av": [], "video": [], "audio": [], "text": []}
    for number in range(4):
        samples = tone(2, RATE_HZ, 300 + 400 * number)[0]
        write_sound(folder / f"{number}.wav", samples[None], RATE_HZ)
        write_film(folder / f"{number}.mp4", [(0.0, samples[None])], RATE_HZ, seconds=2)
        write_film(folder / f"silent{number}.mp4", [], seconds=2)
    for number in range(8):
        film, silent = f"{number % 4}.mp4", f"silent{number % 4}.mp4"
        kinds["av"].append(row(number, "<video>What is it?", "A tone, and numbers.", video=film))
        kinds["video"].append(row(number, "<video>What is it?", "Numbers.", video=silent))
        sound = {"audio": f"{number % 4}.wav"}
        kinds["audio"].append(row(number, "<audio>What is it?", "A tone.", **sound))
        kinds["text"].append(row(number, f"What is {number}?", "A number."))
    for kind, found in kinds.items():
        lines = "".join(json.dumps(one) + "\n" for one in found)
        (folder / f"{kind}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def trained(recipe, out, *more):
    """The weights before and after a run, and the folder of its last checkpoint."""
    assert main(["run", "--config", recipe, "--out", str(out), "--quiet", "--anyway", *more]) == 0
    return checkpoints(out)[-1]


def data(rows, **parts):
    """Arguments that put these rows in place of a recipe's data. parts: by kind, or None"""
    given = ["--data", "[]"]
    for kind, part in parts.items():
        given += [f"--data.{kind}.path", str(rows / f"{kind}.jsonl")]
        given += [f"--data.{kind}.part", part] if part else []
    return given


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def moved(before, after) -> set[str]:
    """Modules of which a weight is another one."""
    one, other = tensors(before), tensors(after)
    return {
        name.split(".")[0]
        for name in one
        if name in other and not torch.equal(one[name], other[name])
    }


SOUND = [{"type": "audio", "audio": (tone(2, RATE_HZ, 500)[0], RATE_HZ)}]


def heard(folder):
    studio = vl3.load(folder)
    asked = [{"role": "user", "content": [*SOUND, {"type": "text", "text": "What?"}]}]
    return studio.reply(asked, max_new_tokens=3).ledger.sound_tokens


def test_ear1_align_and_ear2_joint_run_on_nano(rows, tmp_path):
    assert (
        main(["assemble", "--ear", "nano-whisper", "--dtype", "float32", str(tmp_path / "ear")])
        == 0
    )
    small = ["--batch.samples", "4", "--workers", "0", "--dtype", "float32", "--steps", "2"]
    one = ["--start.model", str(tmp_path / "ear"), "--start.ear", "null"]
    first = trained("ear1_align", tmp_path / "one", *one, *small, *data(rows, audio=None))
    assert moved(tmp_path / "ear", first) == {"audio_connector"}
    assert heard(first) > 20
    mix = data(rows, av="av", video="video", audio="audio")
    second = trained("ear2_joint", tmp_path / "two", "--start.model", str(first), *small, *mix)
    assert (second / "adapter_config.json").is_file()
    assert moved(first, second) == {"audio_connector"}  # of what trained whole
    adapted = vl3.load(second)
    assert adapted.processor.settings.sound.tokens == 1500  # as the recipe says, not as the base
    assert heard(second) > 20


def test_ear1_align_takes_an_ear_by_itself(rows, tmp_path):
    start = ["--start.model", "assets/nano", "--start.ear", "nano-beats"]
    small = ["--batch.samples", "4", "--workers", "0", "--steps", "1"]
    assert (
        heard(trained("ear1_align", tmp_path / "run", *start, *small, *data(rows, audio=None))) > 5
    )


def test_a_model_that_hears_already_gets_no_other_ear(rows, hearing_folder, tmp_path, capsys):
    start = ["--start.model", str(hearing_folder), "--start.ear", "nano-beats"]
    for given, words in (
        (start, "start.ear: this model has an ear already; set it to null"),
        (["--start.model", "assets/nano", "--start.ear", "gone"], "start.ear: an ear is BEATs'"),
        (
            ["--start.model", "assets/nano", "--start.ear", "null", "--checkpointing", "[ear]"],
            "rates.audio_connector: this model has no ear",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            trained("ear1_align", tmp_path / "run", *given, *data(rows, audio=None))
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


def test_a_plan_knows_the_ear_that_a_run_starts_with(rows, capsys):
    start = ["--start.model", "assets/nano", "--start.ear", "nano-whisper"]
    assert main(["plan", "ear1_align", *start, *data(rows, audio=None), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured"]
    assert {row["name"] for row in plan["modules"]} >= {"ear", "audio_connector"}
    assert plan["memory"]["ear activations"] > 0
    records = open_records(str(rows / "audio.jsonl"), name="audio")
    processor = vl3.load().processor
    from vl3.weights.ears import read_ear, with_ear

    hearing = with_ear(processor, read_ear("nano-whisper"))
    size = measure(records[0], hearing, 400)
    assert (size.sound, size.pieces) == (25, 1)
    assert plan["tokens"] / plan["samples"] == pytest.approx(size.tokens, abs=2)


@pytest.fixture(scope="module", params=["clip and mistral", "siglip and qwen2"])
def parts(request, tmp_path_factory):
    """A tiny tower and a tiny language model of the kinds that VideoLLaMA 2 and 2.1 have."""
    folder = tmp_path_factory.mktemp("parts")
    if request.param == "clip and mistral":
        config = CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
        )
        CLIPVisionModel(config).save_pretrained(folder / "tower")
        write_language(
            folder / "language", "mistral", plain_tokenizer("words"), sliding_window=None
        )
    else:
        write_siglip(folder / "tower")
        write_language(folder / "language", "qwen2.5", plain_tokenizer(), use_sliding_window=False)
    return folder


@pytest.mark.slow
def test_the_five_stages_of_videollama_2_run_in_small(parts, rows, tmp_path):
    """Each from the one before: what learns moves, what is frozen stays, sound is heard at last."""
    start = ["--start.vision", str(parts / "tower"), "--start.language", str(parts / "language")]
    steps = ["--steps", "2", "--dtype", "float32"]
    runs = {
        VIDEO[0]: [*start, *data(rows, video=None)],
        VIDEO[1]: data(rows, video=None, text=None),
        AUDIO[0]: data(rows, audio=None),
        AUDIO[1]: data(rows, audio=None),
        AUDIO[2]: data(rows, av="av", video="video", audio="audio", text="video"),
    }
    before = None
    for stage, given in runs.items():
        if before is not None:
            given = ["--start.model", str(before), *given]
        after = trained(f"{stage},tiny", tmp_path / stage, *given, *steps)
        if before is not None:
            learns = set(PAPER[stage][0])
            assert moved(before, after) == learns - (
                {"audio_connector"} if stage == AUDIO[0] else set()
            )
        before = after
    studio = vl3.load(before)
    assert studio.processor.settings.sound.order == "append"
    assert studio.processor.settings.square.fit == "pad"
    assert heard(before) > 5
    losses = json.loads((tmp_path / AUDIO[2] / "metrics.jsonl").read_text().splitlines()[0])
    assert {name for name in losses if name.startswith("loss/")} >= {"loss/av", "loss/audio"}


def test_a_row_of_words_takes_no_slot(hearing_folder, rows):
    studio = vl3.load(hearing_folder)
    records = open_records(str(rows / "text.jsonl"), name="text")
    sample = build(records[0], studio.processor, 400)
    slots = torch.tensor(studio.model.config.slot_token_ids)
    assert not torch.isin(sample.ids_L, slots).any()
    assert not sample.sound
    assert not sample.grids
    assert (sample.labels_L != IGNORE).any()
    film = build(open_records(str(rows / "av.jsonl"), name="av")[0], studio.processor, 400)
    audio_id = studio.model.config.audio_token_id
    assert int((film.ids_L == audio_id).sum()) in range(24, 28)
    assert np.isfinite(film.sound["input_features"].numpy()).all()


def test_the_heads_say_what_they_estimate():
    for name in ("ear1_align", "ear2_joint", *VIDEO, *AUDIO):
        head = (BUNDLED / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
        assert re.search(r"\(plan\): \d+ GB", head)
        assert "Source: " in head
