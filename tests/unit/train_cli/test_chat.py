"""The terminal: same text as the library, a conversation, one sentence for what went wrong."""

import argparse
import io
import re
from importlib import import_module

import pytest
from clips import write_clip
from sounds import tone, write_film, write_sound

import vl3
from train_cli.__main__ import main
from vl3.sound import RATE_HZ


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "clip with spaces.mp4"
    write_clip(path, 24, 4, size=(96, 96))
    return str(path)


def said(studio, clip, question, **options):
    parts = [
        {"type": "video", "video": {"path": clip, **options}},
        {"type": "text", "text": question},
    ]
    return studio.reply([{"role": "user", "content": parts}], max_new_tokens=6).text


def test_one_question_gives_the_text_of_the_library(tiny_folder, clip, capsys):
    arguments = ["chat", "--model", str(tiny_folder), "--video", clip, "--max-new-tokens", "6"]
    assert main([*arguments, "--fps", "2", "--end", "3", "--details", "What?"]) == 0
    out, err = capsys.readouterr()
    expected = said(vl3.load(tiny_folder), clip, "What?", fps=2.0, end=3.0)
    assert out == expected + "\n"
    assert "6 frames" in err
    assert "6 new tokens" in err


ANSWER = {
    "max_new_tokens": 3,
    "temperature": 0.5,
    "top_p": 0.75,
    "repetition_penalty": 1.25,
    "seed": 7,
    "budget_tokens": 100,
}
PRUNE = {"prune": "rlt", "prune_threshold": 4.0, "prune_keep": "later"}
READ = {"fps": 2.0, "max_frames": 3, "start": 1.0, "end": 4.5}


def test_every_option_of_an_answer_reaches_it(tiny_folder, clip, monkeypatch):
    replies, stream = [], vl3.Studio.stream

    def noting(studio, *messages, **options):
        for event in stream(studio, *messages, **options):
            replies.append(event)
            yield event

    monkeypatch.setattr(vl3.Studio, "stream", noting)
    options = ANSWER | PRUNE | READ | {"system": "Be brief."}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert main(["chat", "--model", str(tiny_folder), "--video", clip, *given, "What?"]) == 0
    reply = replies[-1]
    assert {name: reply.settings[name] for name in ANSWER} == ANSWER
    prune = reply.settings["prune"]
    assert (prune["mode"], prune["threshold"], prune["keep"]) == tuple(PRUNE.values())
    assert reply.seen[0].times_s == vl3.load(tiny_folder).plan(clip, **READ).times_s
    assert reply.prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert (
        main(["chat", "--model", str(tiny_folder), "--prune=off", "--max-new-tokens=1", "?"]) == 0
    )
    assert replies[-1].settings["prune"] is None


def test_a_conversation(tiny_folder, clip, capsys, monkeypatch):
    lines = ["First?", "/video missing.mp4", "Second?", "/nonsense", "Third?", "/new", "/quit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    arguments = ["chat", "--model", str(tiny_folder), "--video", clip, "--max-new-tokens", "4"]
    assert main([*arguments, "--details"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) >= 2
    assert err.count("new tokens") == 2, "the question about the missing file has no answer"
    assert "missing.mp4" in err
    assert err.count("(0 reused)") == 1, "the second question starts from the first one's video"
    assert "commands:" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "no such thing", "?"], "no folder"),
        (["--video", "gone.mp4", "?"], "gone.mp4"),
        (["--temperature", "-1", "?"], "temperature"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words, tiny_folder, capsys):
    model = [] if "--model" in arguments else ["--model", str(tiny_folder)]
    assert main(["chat", *model, *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last


def test_the_quantized_layers_are_told(tiny_folder, capsys):
    pytest.importorskip("bitsandbytes")
    arguments = ["--model", str(tiny_folder), "--quantize", "nf4", "--max-new-tokens", "1", "?"]
    assert main(["chat", *arguments]) == 0
    assert "nf4: 14 linear layers of the language model" in capsys.readouterr().err


def test_doctor_gives_a_verdict(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", "device", "VideoLLaMA3-2B", "verdict         ready"):
        assert word in out


COMMANDS = (
    "chat",
    "doctor",
    "demo",
    "recipes",
    "validate",
    "assemble",
    "export",
    "ablate",
    "compare",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_has_a_line_of_help(name):
    parsers = [argparse.ArgumentParser()]
    import_module(f"train_cli.{name}").add_arguments(parsers[0])
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            else:
                assert action.help, f"{name} {action.option_strings or action.dest}"


def test_help_explains(capsys):
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    out = capsys.readouterr().out
    assert "frames per second to look at" in out
    assert "/video FILE" in out


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    write_sound(folder / "low.wav", tone(2, RATE_HZ, 300), RATE_HZ)
    write_film(folder / "low.mp4", [(0.0, tone(2, RATE_HZ, 300))], RATE_HZ)
    return folder


def test_a_sound_and_a_film_are_heard_unless_told_not_to(hearing_folder, sounds, capsys):
    named = ["--model", str(hearing_folder), "--details", "--max-new-tokens", "2"]
    for medium, heard in (("--audio", "low.wav"), ("--video", "low.mp4")):
        asked = ["chat", *named, medium, str(sounds / heard), "What?"]
        assert main([*asked, "--end", "1"]) == 0
        assert re.search(r"1[2-4] tokens of sound", capsys.readouterr().err)
        assert main([*asked, "--no-sound"]) == 0
        assert "tokens of sound" not in capsys.readouterr().err


def test_a_conversation_takes_a_sound(hearing_folder, sounds, capsys, monkeypatch):
    lines = [f"/audio {sounds / 'low.wav'}", "What?", "/help"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    named = ["--model", str(hearing_folder), "--details", "--max-new-tokens", "2"]
    assert main(["chat", *named]) == 0
    err = capsys.readouterr().err
    assert "25 tokens of sound" in err
    assert "commands: /video FILE, /audio FILE, /new, /quit" in err


def test_a_model_without_an_ear_takes_no_sound(tiny_folder, sounds, capsys):
    named = ["--model", str(tiny_folder), "--audio", str(sounds / "low.wav"), "What?"]
    assert main(["chat", *named]) == 2
    assert "sound is not read by this model" in capsys.readouterr().err
