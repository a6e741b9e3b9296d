"""vl3 as users install it: built, put into an empty environment, used from another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

client_module = pytest.importorskip("gradio_client")

REPO = Path(__file__).resolve().parents[2]
NOT_SOURCE = (".*", "build", "runs", "*.egg-info", "__pycache__", "node_modules")
QUESTION, CLIP = "Which shape appears first?", "circle_then_star.mp4"
USE = f"""
import sys
from pathlib import Path
from PIL import Image
import vl3
from vl3 import bundled
from vl3.viz import export, pictures, pruning

studio = vl3.load()
video = studio.open(bundled.CLIPS / {CLIP!r})
print("".join(studio.ask(video, {QUESTION!r})))
view = pruning.data(video.clip, video.grid, None)
Path("view.html").write_text(export.page(view), "utf-8")
Image.fromarray(pictures.film(video.clip, video.grid, video.keep)[0]).save("film.png")
print(Path(vl3.__file__).parent)
print(Path(sys.modules["vl3.kernels.difffp"].__file__).parent)
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What the command prints, without anything of this checkout on its path."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=ours, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "-q", *arguments, cwd=cwd)


def wheel_of(source: Path, to: Path) -> Path:
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "-w", to, cwd=to.parent)
    (built,) = to.glob("*.whl")
    return built


def environment_with(folder: Path, *arguments: str | Path) -> Path:
    """A new environment with what pip installs of these; it sees the packages of this one, but
    none of the paths that editable installs add to it. Gives its folder of packages."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "seen.pth").write_text("\n".join(seen) + "\n")
    own = ("--python", folder / "bin/python")
    pip(*own, "install", "--no-deps", "--no-index", *arguments, cwd=folder.parent)
    return packages


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The checkout without what builds and runs leave in it."""
    folder = tmp_path_factory.mktemp("build") / "vl3"
    return shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns(*NOT_SOURCE))


@pytest.fixture(scope="module")
def source(copy) -> Path:
    """The unpacked source distribution."""
    shutil.copytree(REPO / ".ci", copy / ".ci")
    build = f"from setuptools import build_meta as b; b.build_sdist({str(copy.parent)!r})"
    run(sys.executable, "-c", build, cwd=copy)
    (packed,) = copy.parent.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(copy.parent, filter="data")
    return copy.parent / packed.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    return wheel_of(source, source.parent / "of_source")


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """The folder of packages of an environment that holds the wheel."""
    return environment_with(wheel.parents[1] / "env", wheel)


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and when it was written."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in found}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def test_the_source_distribution_is_whole(copy, source):
    made = {name for name in files(copy) if name.startswith("vl3.egg-info")}
    missing = files(copy).keys() - files(source).keys() - made
    assert missing == set()


def test_checkout_and_source_distribution_give_the_same_wheel(copy, source, wheel):
    names = ZipFile(wheel).namelist()
    assert sorted(ZipFile(wheel_of(copy, copy.parent / "of_copy")).namelist()) == sorted(names)
    assert 10e6 < wheel.stat().st_size < 13e6
    for model in ("nano", "nano-av"):
        assert f"vl3/assets/{model}/model.safetensors" in names
    assert "vl3/assets/web/page/main.js" in names
    assert not [name for name in names if "/curves" in name or "tests" in name]


def test_only_our_own_names_stand_at_the_top(installed):
    tops = {path.name for path in installed.iterdir()} - {"seen.pth"}
    assert tops == {"vl3", "train_cli", "vl3-0.1.0.dist-info"}


def test_the_wheel_answers_and_draws_from_another_folder(installed, elsewhere):
    before = files(installed)
    python = installed.parents[2] / "bin/python"
    answer, package, kernels = run(python, "-c", USE, cwd=elsewhere).splitlines()
    assert "circle" in answer
    assert Path(package) == installed / "vl3"
    assert Path(kernels) == installed / "vl3/kernels/difffp"
    assert "function mount" in (elsewhere / "view.html").read_text("utf-8")
    assert (elsewhere / "film.png").stat().st_size > 1000
    clip = installed / "vl3/assets/clips" / CLIP
    chat = ("chat", "--model", "assets/nano", "--video", clip, QUESTION)
    assert "circle" in run(python, "-m", "train_cli", *chat, cwd=elsewhere)
    assert "stage4_video" in run(python, "-m", "train_cli", "recipes", "list", cwd=elsewhere)
    assert "usage: vl3 " in run(python, "-m", "vl3", "--help", cwd=elsewhere)
    assert files(installed) == before


def test_the_wheel_serves_the_page(installed, elsewhere):
    before = files(installed)
    command = [installed.parents[2] / "bin/vl3", "--device", "cpu", "--offline", "--port", "7990"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [*map(str, command), "--data-dir", str(elsewhere / "data")],
        cwd=elsewhere,
        env=clean | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = iter(process.stdout.readline, "")
        url = next(found[0] for line in said if (found := re.search(r"is at (http\S+)", line)))
        url = url.removeprefix("is at ")
        with urllib.request.urlopen(url) as reply:
            page = reply.read().decode()
            assert reply.status == 200
        assert "window.vl3" in page
        assert "function mount" in page
        with urllib.request.urlopen(f"{url}/config") as reply:
            assert QUESTION in reply.read().decode()
        file = client_module.handle_file(installed / "vl3/assets/clips" / CLIP)
        client = client_module.Client(url, verbose=False)
        assert "circle" in client.predict(file, QUESTION, api_name="/ask")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert files(installed) == before


def test_an_editable_install_works_from_another_folder(copy, elsewhere):
    packages = environment_with(copy.parent / "editable", "--no-build-isolation", "-e", copy)
    said = run(packages.parents[2] / "bin/python", "-c", USE, cwd=elsewhere).splitlines()
    assert "circle" in said[0]
    assert [Path(said[1]), Path(said[2])] == [copy / "vl3", copy / "kernels/difffp"]
