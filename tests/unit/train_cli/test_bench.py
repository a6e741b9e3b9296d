"""The benchmark on its smallest inputs: every group, equal outputs, figures that make sense."""

import json
import math

import numpy as np
import pytest
import torch

from train_cli.__main__ import main
from train_cli.bench import GROUPS, ON_REQUEST, clips, files, merged, peers
from train_cli.bench.measure import Mismatch, beside, same_start, spread, within
from train_cli.bench.page import HAND
from train_cli.bench.quantized import resident
from train_cli.bench.scaling import over_line
from vl3 import video
from vl3.config import nano
from vl3.model import VL3ForConditionalGeneration
from vl3.values import Grid
from vl3.vision.prune import prune


@pytest.mark.slow
def test_every_group_gives_figures_and_a_page(tmp_path, capsys):
    figures_file, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text(f"old figures\n\n{HAND}\n\n## Kept\n", encoding="utf-8")
    asked = ["--tiny", "--rounds", "1", "--json", str(figures_file), "--markdown", str(page)]
    assert main(["bench", *asked]) == 0
    groups = json.loads(figures_file.read_text())["groups"]
    assert list(groups) == [name for name in GROUPS if name not in ON_REQUEST]
    for name, rows in groups.items():
        assert rows or name == "nf4", name
        for row in rows:
            values = [row["time_over_line"]] if "frames" in row else row["ratio"]
            assert all(math.isfinite(value) and value > 0 for value in values), row
    text = page.read_text()
    assert text.endswith("## Kept\n")
    assert "old figures" not in text
    assert "not measured" in text
    assert all(f"## {name.capitalize()}" in text for name in groups)
    assert f"Groups left out of this page: {', '.join(ON_REQUEST)}." in text
    assert "encode" in capsys.readouterr().err, "progress goes to standard error"


@pytest.mark.slow
def test_a_whole_answer_is_measured_on_request(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert main(["bench", "--tiny", "--only", "2b", "--json", str(figures)]) == 0
    (row,) = json.loads(figures.read_text())["groups"]["2b"]
    assert row["frames_seen"] == 3
    assert row["weights_bytes"] < row["peak_bytes"] < 1e9
    assert "| 2B, bfloat16 |" in capsys.readouterr().out


def test_an_unknown_group_is_refused(capsys):
    assert main(["bench", "--only", "decode,speed"]) == 1
    assert "'speed'" in capsys.readouterr().err


def test_answers_may_part_after_a_quarter():
    ids = list(range(8))
    assert same_start(ids, ids) == "same tokens"
    assert same_start(ids, [0, 1, 9, 3, *ids[4:]]) == "the first 2 of 8 tokens are the same"
    for other in ([0, 9, 2, *ids[3:]], ids[:7]):
        with pytest.raises(Mismatch):
            same_start(ids, other)


def test_different_outputs_give_no_figure():
    with pytest.raises(Mismatch):
        beside("work", lambda: torch.ones(2), {"peer": lambda: torch.zeros(2)}, 1, files.same)
    with pytest.raises(Mismatch):
        within(1e-3)(torch.ones(3), torch.ones(3) * 1.01)
    with pytest.raises(Mismatch):
        files.close_pixels(torch.zeros(9, dtype=torch.uint8), torch.zeros(9))


def test_sides_run_by_turns():
    order = []
    rows = beside(
        "work",
        lambda: order.append("ours"),
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        2,
        lambda *_: "fine",
    )
    assert order == ["ours", "a", "b"] * 3
    assert [row.peer for row in rows] == ["a", "b"]


def test_spread_and_distance_from_a_line():
    assert spread([5, 1, 3, 2, 4]) == (2, 3, 4)
    assert spread([7.0]) == (7.0, 7.0, 7.0)
    assert over_line([8, 16, 24], [1.0, 3.0, 3.0]) == [1.0, 1.5, 1.0]


def test_runs_of_two_machines_are_not_mixed():
    here = {"machine": {"cores": "2"}, "rounds": 5, "groups": {"mask": [1], "decode": [2]}}
    again = {"machine": {"cores": "2"}, "rounds": 5, "groups": {"mask": [3]}}
    assert merged([here, again])["groups"] == {"decode": [2], "mask": [3]}
    with pytest.raises(ValueError, match="different machines"):
        merged([here, {**again, "machine": {"cores": "4"}}])


def test_the_official_arrangement_gives_the_same_mask_on_drifting_noise():
    noise = torch.Generator().manual_seed(0)
    grid = Grid(frames=5, rows=4, cols=4, merge=2)
    pixels = torch.randint(0, 250, (grid.num_patches, 588), dtype=torch.uint8, generator=noise)
    cells = pixels.view(5, 4, -1)
    cells[1:] = cells[:1]
    for frame in range(1, 5):
        cells[frame, :, : 116 + frame] += 1  # 117 of 2352 values changed by a level is the limit
        cells[frame:] = cells[frame]
    from vl3.values import Patches

    ours = prune(Patches(pixels_NP=pixels, grids=(grid,)), 0.1).keep_M
    theirs = peers.official_mask(files.normalised(pixels), grid, 0.1)
    assert torch.equal(ours, theirs)
    assert 4 < int(ours.sum()) < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", clips.KINDS)
def test_generated_clips_show_what_they_say(kind, tmp_path):
    frames = video.read(clips.write(kind, tmp_path, 2), fps=2).frames_TYX3.astype(int)
    assert len(frames) == 4
    change = np.abs(frames[1:] - frames[:-1]).mean()
    assert frames.std() > 20
    assert change > 5 if kind in ("motion", "camera", "portrait") else change < 0.5


def test_resident_weights_count_every_part_once():
    pytest.importorskip("bitsandbytes")
    config = nano(vocab_size=512, image_token_id=0)
    *parts, whole = resident(config)
    assert whole.bytes_16bit == 2 * VL3ForConditionalGeneration(config).num_parameters()
    assert whole.bytes_nf4 == sum(part.bytes_nf4 for part in parts)
    shares = {
        part.part: (part.bytes_nf4 / part.bytes_16bit, part.bytes_small / part.bytes_16bit)
        for part in parts
    }
    nf4, small = shares.pop("language model: linears of its layers")
    assert 0.25 < nf4 == small < 0.4
    assert {nf4 for nf4, _ in shares.values()} == {1.0}
    assert all(0.5 < small < 0.6 for _, small in shares.values())
    assert whole.bytes_small == sum(part.bytes_small for part in parts)
