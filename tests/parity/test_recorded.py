"""Parity with the recorded official outputs, and canaries: perturbed twins that must be noticed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vl3.model import VL3ForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTER = REPOSITORY / "tests/parity/adapter.py"
OFFICIAL = [
    "a_image",
    "b_two_images",
    "c_video_compress",
    "c_video_nocompress",
    "c2_static_compress",
    "d_text",
    "e_multiturn_video",
]


def check(shared, case, adapter=ADAPTER) -> str:
    """What the checking script prints for the cases whose names start with case."""
    command = [
        sys.executable,
        str(shared / "fixtures/check.py"),
        "--project",
        str(REPOSITORY),
        "--adapter",
        str(adapter),
        "--case",
        case,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("case", "at_least"),
    [
        ("vl3_official_tiny", 65),
        ("vl3_hf_tiny", 6),
        ("vl3_text", 58),
        ("vl3_preprocess", 75),
        ("diff_fp", 15),
        ("vl2_av_beats_tiny", 4),
        ("vl2_stc_tiny", 29),
    ],
)
def test_every_recorded_case(shared, case, at_least):
    out = check(shared, case)
    passed, failed, skipped = map(int, re.findall(r"\d+", out.splitlines()[-1]))
    assert failed == 0, out
    assert passed >= at_least, out
    # The clip behind two cases is not among the recorded inputs, only its frames are; and nothing
    # here trims a clip after it was sampled, as the official precise_time does.
    assert skipped == out.count("SKIP c_video") + out.count("'precise_time': True"), out


CANARIES = {
    "rows and columns exchanged in 2D-RoPE": (
        "vl3_official_tiny/a_image",
        "vision",
        "import vl3.vision.rope2d as m\n"
        "right = m.positions\nm.positions = lambda *a: right(*a).flip(-1)",
    ),
    "attention without rotation": (
        "vl3_official_tiny/a_image",
        "vision",
        "import vl3.ops as m\nm.rotate = lambda q, k, runs: (q, k)",
    ),
    "width and height exchanged in the grid": (
        "vl3_official_tiny/b_two",
        "grids",
        "import vl3.pipeline as m\nright = m.fit_grid\n"
        "m.fit_grid = lambda sizes, *a, **k: right([(t, w, h) for t, h, w in sizes], *a, **k)",
    ),
    "pruner with half the distance": (
        "diff_fp",
        "prune",
        "import vl3.kernels.difffp.reference as m\nright = m.change\n"
        "m.change = lambda *a: right(*a) * 0.5",
    ),
    "BEATs without the gate of its position bias": (
        "vl2_av_beats_tiny",
        "features",
        "import vl3.audio.beats as m, torch\n"
        "right = m.RelativeAttention.forward\n"
        "def ungated(self, *a):\n"
        "    torch.nn.init.zeros_(self.grep_linear.weight)\n"
        "    return right(self, *a)\n"
        "m.RelativeAttention.forward = ungated",
    ),
    "connector padded on one side alone": (
        "vl2_stc_tiny/stc_connector",
        "stc_connector",
        "from torch.nn.functional import pad\n"
        "import vl3.connectors.stc as m\nright = m.Windowed._one\n"
        "def one(self, x, grid):\n"
        "    self.sampler[0].padding = (0, 0, 0)\n"
        "    self.sampler.register_forward_pre_hook(lambda _, x: pad(x[0], (2, 0) * 3))\n"
        "    return right(self, x, grid)\n"
        "m.Windowed._one = one",
    ),
    "time stamps rounded up": (
        "vl3_text",
        "chat",
        "import vl3.prompt as m, math\nm.stamp = lambda t: str(math.ceil(t * 10) / 10)",
    ),
    "frames from the start of their interval": (
        "vl3_preprocess",
        "sample",
        "right = read_official\n"
        "read_official = lambda path, **k: (right(path, **k)[0][::-1], right(path, **k)[1])",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CANARIES))
def test_canary(shared, tmp_path, name):
    case, noticed_by, change = CANARIES[name]
    perturbed = tmp_path / "adapter.py"
    perturbed.write_text(ADAPTER.read_text() + "\n\n" + change + "\n")
    out = check(shared, case, perturbed)
    assert re.search(rf"^FAIL .*{noticed_by}", out, re.MULTILINE), out


@pytest.fixture(scope="module")
def official(shared):
    return VL3ForConditionalGeneration.from_pretrained(
        shared / "fixtures/vl3_official_tiny/ckpt_a", dtype=torch.float32
    ).eval()


@pytest.mark.parametrize("case", OFFICIAL)
def test_features_within_2e_5_and_logits_within_1e_4(shared, official, case):
    """Tighter than the recorded tolerances: what two float32 programs differ by on one machine."""
    folder = shared / "fixtures/vl3_official_tiny/cases"
    described = json.loads((folder / f"{case}__ckpt_a/case.json").read_text())
    recorded = dict(np.load(folder / f"{case}__ckpt_a/expected.npz"))
    source = described["pixels_from"]
    levels = np.load(folder / source / "expected.npz") if source else recorded
    ids, inputs = torch.from_numpy(recorded["input_ids"])[None].long(), {}
    if "grid_sizes" in recorded:
        keep = torch.ones(int((official.slots(ids)).sum()), dtype=torch.bool)
        if described["use_token_compression"]:
            keep = torch.from_numpy(recorded["compression_mask"]).bool()
        stays = torch.ones_like(ids[0], dtype=torch.bool)
        stays[official.slots(ids)[0]] = keep
        ids = ids[:, stays]
        pixels = torch.from_numpy(levels["pixel_u8"])
        sizes = {"grid_thw": recorded["grid_sizes"], "merge_sizes": recorded["merge_sizes"]}
        inputs = {"pixel_values": pixels, "keep_mask": keep, **sizes}
        with torch.no_grad():
            features = official.encode_vision(pixels, **sizes)
        if "vision_features" in recorded:
            assert np.abs(features.numpy() - recorded["vision_features"]).max() <= 2e-5
    with torch.no_grad():
        logits = official(input_ids=ids, **inputs).logits[0].numpy()
    assert len(logits) == described["recorded"]["llm_sequence_length"]
    there = logits[recorded["logits_positions"]]
    assert np.abs(there - recorded["logits_at_positions"]).max() <= 1e-4
