"""The page's scripts: what they compute against values from Python, their lint and their types."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from joining import Joining

from vl3.pipeline import to_patches
from vl3.values import Clip, Grid
from vl3.vision import prune, rope2d
from vl3.vision.token_map import token_layout
from vl3.viz import attention, positions, pruning
from vl3.viz.pack import packed
from vl3.webapp import box_links, text_format, timestamps

HERE = Path(__file__).parent
REPO = HERE.parents[1]
NODE = shutil.which("node")
ESLINT = REPO / "node_modules" / ".bin" / "eslint"
TSC = REPO / "node_modules" / ".bin" / "tsc"
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")

TIMES_S = [0, 0.4, 0.999, 1, 9.9999999, 59.96, 60, 61.5, 599, 3599.9, 3600, 3661, 86_399, 359_999.5]
TIMES_S += [360_000, 1e6, 31_536_000, 4e9, -0.4, -1, -61]
TYPED = [
    "12",
    "12.5",
    "12.5 s",
    " 0:12 ",
    "1:02:03",
    "1:02:03.25",
    "9999999:00:00",
    "0:60",
    "1:2",
    "-1",
]
TYPED += [
    "a",
    "12 seconds",
    "12S",
    "1.2345",
    "12345678901",
    "999:59",
    "1:00:00.1234",
    "0:00",
    ".5",
    "1,5",
]
SHARES = [0, 1e-9, 0.004, 0.0051, 0.01, 0.333, 0.5, 0.9949, 0.995, 0.999999, 1]


def rolling_clip(grid: Grid, seed: int) -> Clip:
    """Noise that grows from left to right, with a frame now and then that is as the one before."""
    random = np.random.default_rng(seed)
    size = (grid.rows * 14, grid.cols * 14, 3)
    strength = np.linspace(0, 6, size[1])[None, :, None] ** 2
    frames = [random.integers(0, 256, size).astype(float)]
    while len(frames) < grid.frames:
        moved = frames[-1] + random.normal(0.3, 1, size) * strength
        frames.append(frames[-1] if random.random() < 0.25 else moved)
    pixels = np.stack(frames).clip(0, 255).astype(np.uint8)
    times_s = None if grid.frames == 1 else tuple(map(float, range(grid.frames)))
    return Clip(frames_TYX3=pixels, times_s=times_s, source="noise")


def drift(clip: Clip, grid: Grid, keep_TM: np.ndarray, later: bool) -> list[list[float]]:
    """Mean difference in grey levels of each removed token from its last kept version, slowly."""
    side = 14 * grid.merge
    tiles = clip.frames_TYX3.astype(float).reshape(
        grid.frames, grid.token_rows, side, grid.token_cols, side, 3
    )
    cells = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(grid.frames, grid.tokens_per_frame, -1)
    found = np.zeros(keep_TM.shape)
    for frame, token in zip(*np.nonzero(~keep_TM)):
        source = frame
        while not keep_TM[source, token]:
            source += 1 if later else -1
        found[frame, token] = np.abs(cells[frame, token] - cells[source, token]).mean()
    return found.tolist()


def pruned(grid: Grid, seed: int) -> dict:
    """A clip's data and what the pruner decides of it: its rules with states, kept and drift."""
    clip = rolling_clip(grid, seed)
    patches = to_patches([clip], [grid])
    random, rules = np.random.default_rng(seed), []
    for mode in ("official", "rlt", "last_kept"):
        for side in ("earlier", "later"):
            changes = prune(patches, mode=mode, keep=side).change_M
            changes = changes[changes.isfinite()].double().numpy()
            thresholds = list(10 ** random.uniform(-2, 2, 4))
            if len(changes):  # exactly a value that is compared: strictly greater is kept
                thresholds += list(random.choice(changes, 3))
                thresholds.append(random.choice(changes) * (1 - 1e-12))  # the same in float32
            for threshold in map(float, thresholds):
                rule = {"mode": mode, "threshold": threshold, "keep": side}
                rule["min_tokens"] = int(random.integers(0, 3))
                keep = prune(patches, **rule)
                state = keep.keep_M.to(torch.uint8) + keep.placeholder_M.to(torch.uint8)
                keep_TM = keep.keep_M.view(grid.frames, -1).numpy()
                rules.append(
                    {
                        "rule": rule,
                        "state": state.tolist(),
                        "kept": list(keep.kept_per_frame[0]),
                        "drift": drift(clip, grid, keep_TM, side == "later"),
                    }
                )
    return {"data": pruning.data(clip, grid, None), "rules": rules}


def rotated(grid: Grid, channels: int, row: int, col: int) -> list[list[float]]:
    """Products of a patch with every other, of vectors that are alike but for their rotation."""
    position_N2 = rope2d.positions(grid)
    angle_NR = rope2d.angles(position_N2, channels)
    ones_NHC = torch.zeros(grid.rows * grid.cols, 1, channels)
    ones_NHC[..., : channels // 2] = 1
    turned_NC = rope2d.rotate(ones_NHC, angle_NR)[:, 0]
    place = (position_N2 == torch.tensor([row, col])).all(dim=1).nonzero().item()
    product_N = turned_NC @ turned_NC[place] / (channels // 2)
    found = torch.zeros(grid.rows, grid.cols)
    found[position_N2[:, 0], position_N2[:, 1]] = product_N
    return found.tolist()


def roped(grid: Grid, channels: int, **options) -> dict:
    patches = [(0, 0), (grid.rows - 1, grid.cols // 2)]
    return {
        "data": positions.data(grid, channels, **options),
        "patches": [
            {"row": row, "col": col, "similarity": rotated(grid, channels, row, col)}
            for row, col in patches
        ],
    }


def attended() -> dict:
    """Maps as they are packed and the weights in them; media of which some patches were removed."""
    random = np.random.default_rng(4)
    tops_X, levels_X = attention.quantised(random.random((2, 7)) ** 8)
    maps = {"source": "vision", "first": 3, "slots": 7, "sinks": [4], "tokens": [5]}
    maps |= {"layers": [0], "heads": [0, 1], "tops": packed(tops_X), "levels": packed(levels_X)}
    media, first_slots = [], [0]
    for frames, rows, cols in ((3, 2, 3), (1, 2, 2)):
        keep = random.random((frames, rows, cols)) < 0.6
        slots = np.where(keep, first_slots[-1] + np.cumsum(keep).reshape(keep.shape) - 1, -1)
        first_slots += (first_slots[-1] + keep.sum(axis=(1, 2)).cumsum()).tolist()
        medium = {"frames": frames, "rows": rows, "cols": cols}
        media.append(medium | {"slots": packed(slots.astype(np.int32))})
    weights = attention.restored(tops_X, levels_X).tolist()
    return {"maps": maps, "weights": weights, "media": media, "first_slots": first_slots}


def joined() -> dict:
    """Five frames of 3 x 5 cells of which a connector joins two frames and 2 x 2 cells each."""
    grid = Grid(frames=5, rows=3, cols=5, merge=1)
    tokens, times_s = Joining.token_grid(grid), tuple(map(float, range(5)))
    keep = np.ones(grid.num_tokens, bool)
    layout = token_layout([tokens], keep, [times_s], [(30, 50)])
    medium = {"frames": 5, "rows": 3, "cols": 5, "times_s": times_s}
    spans = [(4, 6), (15, 6), (26, 6)]
    options = {"spans": spans, "keep_M": keep, "tokens": tokens, "times_s": times_s}
    return {
        "media": [medium | {"slots": packed(layout.slots[0].astype(np.int32))}],
        "boxes": layout.box_K4.astype(int).tolist(),
        "frames": layout.frames_K2.tolist(),
        "positions": positions.data(grid, 64, **options)["language"],
        "spans": spans,
    }


def boxes() -> list[dict]:
    made = []
    for text, key in (
        ("It is at [[1,2,300,400]] (0:12) and [[5,6,7,8]].", "ab12"),
        ("[[0,0,9,9]]", ""),
    ):
        (target,) = re.findall(r"\((#boxes=[^)]*)\)", box_links.link(text, key))
        found, total = box_links.find(text)
        places = [[[box.left, box.top, box.right, box.bottom], box.time_s] for box in found]
        made.append({"hash": target, "list": places, "total": total, "key": key or None})
    return made


def typed_s(text: str) -> float | None:
    try:
        return timestamps.parse(text, "It")
    except ValueError:
        return None


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> Path:
    """What the tests in node compare with."""
    grid = Grid(frames=3, rows=4, cols=6, merge=2)
    keep = np.ones(grid.num_tokens, bool)
    keep[7], keep[12:] = False, False
    values = {
        "clock": [[time_s, text_format.clock(time_s)] for time_s in TIMES_S],
        "typed": [[text, typed_s(text)] for text in TYPED],
        "count": [[number, text_format.count(number)] for number in (0, 999, 1000, 9216, 10**7)],
        "percent": [[share, text_format.percent(share)] for share in SHARES],
        "pruning": [
            pruned(Grid(frames=6, rows=4, cols=6, merge=2), 1),
            pruned(Grid(frames=4, rows=3, cols=5, merge=1), 2),
            pruned(Grid(frames=5, rows=2, cols=2, merge=2), 3),
            pruned(Grid(frames=1, rows=2, cols=2, merge=1), 4),
        ],
        "rope": [
            roped(grid, 64, spans=[(5, 6), (14, 5), (22, 0)], keep_M=keep, times_s=(0.0, 1.0, 2.0)),
            roped(Grid(frames=1, rows=5, cols=3, merge=1), 72),
        ],
        "attention": attended(),
        "joined": joined(),
        "boxes": boxes(),
    }
    path = tmp_path_factory.mktemp("web") / "expected.json"
    path.write_text(json.dumps(values), "utf-8")
    return path


def test_scripts_compute_what_python_computes(expected):
    tests = sorted(map(str, HERE.glob("*.test.mjs")))
    done = subprocess.run(
        [NODE, "--test", *tests],
        env={**os.environ, "VL3_EXPECTED": str(expected)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.search(r"^[#ℹ] pass (\d+)$", done.stdout, re.M)[1]) >= 15


def run_tool(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(not ESLINT.exists(), reason="npm ci was not run")
def test_scripts_are_linted_and_short():
    run_tool(ESLINT, "--max-warnings", "0", "assets/web", "tests/web")


@pytest.mark.skipif(not TSC.exists(), reason="npm ci was not run")
def test_types_of_the_scripts_agree():
    run_tool(TSC, "--noEmit", "-p", "jsconfig.json")
