"""What comes with vl3 is found from every folder, in one place, and nothing of it elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from train_cli.config import read_recipe
from train_cli.plan import local_processor
from vl3 import bundled
from vl3.weights.hub import resolve
from vl3.weights.load import load
from vl3.weights.places import local

REPO = Path(__file__).resolve().parents[2]


def test_every_folder_holds_what_it_is_for():
    assert all((folder / "model.safetensors").is_file() for folder in bundled.MODELS.values())
    assert (bundled.CLIPS / "examples.json").is_file()
    assert (bundled.VOICES / "digits.npz").is_file()
    assert (bundled.WEB / "page" / "main.js").is_file()
    assert (bundled.recipes() / "lora.yaml").is_file()
    assert (bundled.KERNELS / "difffp" / "reference.py").is_file()


def test_the_bundled_model_has_its_name_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in bundled.MODELS.items():
        assert resolve(name, offline=True) == local(name) == folder
        assert load(name).path == name
    recipe = read_recipe(["--config", "nano_colour"])
    assert recipe.start.model == "assets/nano"
    assert local_processor(recipe) is not None
    own = tmp_path / "assets" / "nano"
    own.mkdir(parents=True)
    assert local("assets/nano") == Path("assets/nano")
    assert local_processor(recipe) is None, "a folder of one's own comes first"


def test_the_kernels_leave_their_name_to_others():
    code = (
        "import sys, vl3.ops, vl3.kernels.timing, train_cli.bench.gpu\n"
        "assert 'kernels' not in sys.modules and 'vl3.kernels.rope2d' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


def test_one_module_knows_where_files_lie():
    sources = [*REPO.glob("vl3/**/*.py"), *REPO.glob("train_cli/**/*.py"), REPO / "app.py"]
    seeking = {str(source.relative_to(REPO)) for source in sources if _seeks(source)}
    assert len(sources) > 200
    assert seeking == {"vl3/bundled.py"}


def _seeks(source: Path) -> bool:
    text = source.read_text("utf-8")
    return bool(re.search(r"__file__|importlib\.resources|/ \"assets\"", text))
