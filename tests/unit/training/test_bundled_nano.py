"""The bundled nano: small, better than guessing, right about the clips that the page offers."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.score import CLIPS, blinded, draw, score

REPOSITORY = Path(__file__).resolve().parents[3]
FAMILIES = ("colour", "shape", "count", "exist")


@pytest.fixture(scope="module")
def nano():
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()
    return model, VL3Processor.from_pretrained(NANO)


def test_fresh_clips_are_answered_and_black_ones_are_not(nano):
    """60 clips a family, other ones than those of the model card; the bar leaves room for luck."""
    drawn = draw(CLIPS, FAMILIES, 60, seed=7)
    seen = score(*nano, drawn)
    blind = score(*nano, [(blinded(clip), questions) for clip, questions in drawn])
    for family in FAMILIES:
        assert seen[family] >= 0.75, seen
        assert seen[family] - blind[family] >= 0.25, (seen, blind)


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
    assert len(check.stdout.splitlines()) >= 9


def test_the_checkpoint_is_small_and_carries_no_code():
    files = [file for file in NANO.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 25e6
    assert not [file for file in files if file.suffix in (".py", ".bin", ".pt")]
