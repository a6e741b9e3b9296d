import json
from dataclasses import replace

import pytest
import torch

from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.training.batch import Remembered
from vl3.training.muon import Muon, orthogonal
from vl3.training.nano import Phase, Recipe, Run, lr_factor, report, train
from vl3.training.score import CLIPS, blinded, draw, score

TINY = Recipe(
    minutes=0.2,
    images_per_batch=4,
    frames_per_batch=12,
    warmup_steps=3,
    tokenizer_scenes=200,
    phases=(
        Phase("sight", 0.2, sight=True, jitter_px=0.0),
        Phase("images", 0.5, questions=4),
        Phase("clips", 1.0, 0.2, seconds=(3, 4), questions=4),
    ),
)


def test_loss_falls_and_the_checkpoint_answers_alike(tmp_path):
    run = Run(TINY, tmp_path)
    run.elapsed_s = 0.25 * 60 * TINY.minutes  # the phase of images
    losses = [run.train_step()["loss"] for _ in range(12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    run.export(tmp_path / "model")
    model = VL3ForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, value in run.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.half().float()), name
    processor = VL3Processor.from_pretrained(tmp_path / "model")
    assert not processor.settings.system_prompt  # it was trained without one
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert processor.settings == run.processor.settings
    assert len(processor.tokenizer) == len(run.processor.tokenizer)


def test_a_resumed_run_goes_on_exactly(tmp_path):
    whole = Run(TINY, tmp_path / "whole")
    first = Run(TINY, tmp_path / "cut")
    for run in (whole, first):
        run.elapsed_s = 0.0
        run.train_step()
        run.elapsed_s = 0.25 * 60 * TINY.minutes
        run.train_step()
    first.save()
    resumed = Run(TINY, tmp_path / "cut")
    resumed.elapsed_s = whole.elapsed_s
    assert resumed.step == 2
    assert resumed.train_step()["loss"] == whole.train_step()["loss"]
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    Run(TINY, tmp_path).save()
    with pytest.raises(ValueError, match="other_lr"):
        Run(replace(TINY, other_lr=1.0), tmp_path)


def test_train_writes_metrics_and_a_checkpoint(tmp_path):
    run = train(replace(TINY, minutes=0.05), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == run.step
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 25e6


def test_report_counts_the_right_answers_of_each_family(tmp_path):
    run = Run(TINY, tmp_path)
    window = [{"loss": 1.0, "lr_factor": 1.0, "right": [("colour", True), ("colour", False)]}]
    report(run, window, 1.0)
    figures = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert figures["right"] == {"colour": 0.5}


def test_the_learning_rate_rises_stays_and_falls():
    recipe = Recipe(warmup_steps=10, decay_from=0.5)
    assert lr_factor(recipe, 0, 0.0) == pytest.approx(0.1)
    assert lr_factor(recipe, 50, 0.4) == 1.0
    assert lr_factor(recipe, 50, 0.75) == pytest.approx(0.5)
    assert lr_factor(recipe, 50, 1.0) == pytest.approx(0.02)


@pytest.mark.parametrize("shape", [(3, 20, 48), (2, 48, 20), (1, 16, 16)])
def test_orthogonal_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_moves_along_the_orthogonal_direction():
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    weight.grad = torch.diag(torch.arange(1.0, 7.0))
    Muon([weight], lr=0.1).step()
    moved = -weight.detach() / 0.1
    assert torch.diag(moved).min() > 0.5
    assert (moved - torch.diag(torch.diag(moved))).abs().max() < 1e-4


def test_score_asks_each_family_that_often_and_blind_clips_are_black(tmp_path):
    run = Run(TINY, tmp_path)
    drawn = draw(CLIPS, ("colour", "order"), 5, seed=0)
    families = [qa.family for _, qas in drawn for qa in qas]
    assert (families.count("colour"), families.count("order")) == (5, 5)
    shares = score(run.model, Remembered(run.processor.tokenizer), drawn)
    assert set(shares) == {"colour", "order"}
    assert blinded(drawn[0][0]).frames_TYX3.max() == 0
    assert drawn[0][0].frames_TYX3.max() > 0
