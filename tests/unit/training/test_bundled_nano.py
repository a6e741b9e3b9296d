"""The bundled models: small, better than guessing, right about the clips that the page offers."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from vl3.bundled import MODELS, NANO_AV_NAME
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.score import CLIPS, SOUNDING, blinded, draw, muted, score

REPOSITORY = Path(__file__).resolve().parents[3]
FAMILIES = ("colour", "shape", "count", "exist")
HEARD = ("sound", "sounds", "hear", "source", "match")


@cache
def loaded(name):
    folder = MODELS[name]
    model = VL3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return model, VL3Processor.from_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_fresh_clips_are_answered_and_black_ones_are_not(name):
    """60 clips a family, other ones than those of the model card; the bar leaves room for luck."""
    drawn = draw(CLIPS, FAMILIES, 60, seed=7)
    seen = score(*loaded(name), drawn)
    blind = score(*loaded(name), [(blinded(clip), questions) for clip, questions in drawn])
    for family in FAMILIES:
        assert seen[family] >= 0.75, seen
        assert seen[family] - blind[family] >= 0.25, (seen, blind)


def test_what_is_heard_is_answered_and_silence_is_not():
    drawn = draw(replace(SOUNDING, voices=0.1), HEARD, 30, seed=7)
    heard = score(*loaded(NANO_AV_NAME), drawn)
    deaf = score(*loaded(NANO_AV_NAME), [(muted(film), questions) for film, questions in drawn])
    for family in HEARD:
        assert heard[family] >= 0.7, heard
        assert heard[family] - deaf[family] >= 0.15, (heard, deaf)


@pytest.mark.slow
def test_the_questions_the_page_suggests_are_answered_right():
    """From the file to the text, as a visitor's question goes."""
    check = subprocess.run(
        [sys.executable, str(REPOSITORY / "assets/clips/check.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert check.returncode == 0, check.stdout + check.stderr[-2000:]
    assert len(check.stdout.splitlines()) >= 20


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_is_small_and_carries_no_code(name):
    files = [file for file in MODELS[name].rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 25e6
    assert not [file for file in files if file.suffix in (".py", ".bin", ".pt")]
