"""bench --gpu: its steps on a CPU, what they import, and what the command line refuses."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from train_cli.__main__ import main
from train_cli.bench.gpu import page, record
from train_cli.bench.gpu.encoder import encoder_flops, random_model, tiny_config
from train_cli.bench.gpu.fixed_cache import FixedAnswer, fixed_decode
from train_cli.bench.gpu.language import twin
from train_cli.bench.gpu.learning import recipes
from train_cli.bench.gpu.smoke import short_of_memory
from train_cli.bench.gpu.steps import STEPS, Place
from train_cli.bench.gpu.timing import ceilings, peak_bytes, timed_s
from train_cli.bench.stages import answer, question, whole
from train_cli.config import read_recipe
from vl3.values import Grid
from vl3.vision.encoder import VisionEncoder

REPOSITORY = Path(__file__).parents[3]
NAMES = [step.name for step in STEPS]
SKIPPED = {"short", "compiled"}
MOST_S = 800
# Runs the rest of its words as a command in a process that cannot import some packages.
WITHOUT = """
import sys
names = set(sys.argv.pop(1).split(","))
class Without:
    def __init__(self, inner): self.inner = inner
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names: return None
        return self.inner.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.inner, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


@pytest.fixture(autouse=True)
def settings_of_a_run_end_with_it(monkeypatch):
    """--tiny sets them for the process that it runs in, and later tests compile kernels."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


NEVER = "gradio,pyarrow,playwright,pandas,plotly,datasets,anywidget,ipywidgets"
SOUND = "kaldi_native_fbank,soundfile,librosa,torchaudio"
BARE = f"{NEVER},jsonargparse,av,bitsandbytes,peft"


def run(*words: str | Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    del environment["TRITON_INTERPRET"]
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=MOST_S
    )


def place(tmp_path) -> Place:
    return Place("cpu", True, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(MOST_S + 60)  # it takes 40 s of a core that has nothing else to do
def test_every_step_is_gone_through_on_a_cpu(tmp_path):
    figures, text = tmp_path / "gpu.jsonl", tmp_path / "gpu.md"
    bench = ["-m", "train_cli", "bench", "--gpu"]
    done = run(*bench, "--tiny", "--json", figures, "--markdown", text)
    assert done.returncode == 0, done.stdout + done.stderr
    first = done.stdout.splitlines()
    assert first[0].startswith("card: none, a CPU")
    assert "torch" in first[1]
    steps = record.steps(record.read(figures))
    assert list(steps) == NAMES
    for name, step in steps.items():
        assert step.ended == ("skipped" if name in SKIPPED else "done"), (name, step.why)
        assert all(row["ok"] for row in step.rows if row["kind"] == "check"), step.rows
        left_out = [row for row in step.rows if row["kind"] == "skip"]
        assert all("shared" in row["why"] for row in left_out), left_out
        assert step.rows or name in SKIPPED
    written = text.read_text("utf-8")
    assert page.REHEARSAL in written
    assert all(f"| `{name}` |" in written for name in NAMES)
    again = tmp_path / "again.md"
    assert main(["bench", "--gpu", "--from", str(figures), "--markdown", str(again)]) == 0
    assert again.read_text("utf-8") == written


@pytest.mark.slow
def test_the_kernels_need_torch_and_triton_only(tmp_path):
    figures = tmp_path / "gpu.jsonl"
    words = ["bench", "--gpu", "--tiny", "--json", str(figures), "--only"]
    code = f"{WITHOUT}\nfrom train_cli.__main__ import main\ncode = main(sys.argv[1:])\n"
    code += "assert not names & {name.partition('.')[0] for name in sys.modules}, sys.modules\n"
    done = run("-c", f"{code}sys.exit(code)", BARE, *words, "answers,rope2d,encoder,stream,cards")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = record.steps(record.read(figures))
    ends = {name: step.ended for name, step in steps.items()}
    assert ends == {
        "answers": "skipped",
        "rope2d": "done",
        "encoder": "skipped",
        "stream": "skipped",
        "cards": "skipped",
    }
    assert steps["answers"].why == "it needs PyAV (pip install av), which is not installed"
    assert "bitsandbytes" in steps["cards"].why


def test_no_step_imports_the_page_or_what_reads_recipes():
    modules = sorted({step.function.partition(":")[0] for step in STEPS})
    assert len(modules) == 6
    code = f"{WITHOUT}\nfrom importlib import import_module\n"
    code += f"for name in {modules!r}: import_module(name)\n"
    code += "assert not names & {name.partition('.')[0] for name in sys.modules}\n"
    done = run("-c", code, f"{NEVER},jsonargparse,bitsandbytes,{SOUND}")
    assert done.returncode == 0, done.stderr


def test_the_page_says_that_nothing_was_run():
    """Whoever runs it first writes the page from the figures, and changes this test."""
    text = (REPOSITORY / "docs/gpu.md").read_text("utf-8")
    assert text == page.written([])
    assert "**Nothing of this has been run.**" in text
    assert all(f"`{name}`" in text for name in NAMES)


REFUSED = {
    "no GPU": ([], "no GPU: torch"),
    "no time": (["--minutes", "0"], "--minutes is above 0 - got 0"),
    "endless": (["--minutes", "inf"], "--minutes is above 0 - got inf"),
    "an unknown step": (["--only", "answers,kernels"], "no step 'kernels'; choose answers, "),
    "clips": (["--clips", "a.mp4"], "leave --clips and --rounds out"),
    "rounds": (["--rounds", "3"], "leave --clips and --rounds out"),
    "deciding by a rehearsal": (["--decide", "--tiny"], "--tiny has none"),
    "a file that is not there": (["--from", "none.jsonl"], "none.jsonl: no such file"),
    "a folder that is not there": (["--json", "none/gpu.jsonl"], "there is no folder none"),
    "a folder for a file": (["--from", "."], ": is a directory"),
    "a page that is a folder": (["--from", "--markdown", "."], ": is a directory"),
    "figures into figures": (["--from", "a", "--json", "b"], "leave --json, --tiny and --only"),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_is_one_sentence(given, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words, said = REFUSED[given]
    with pytest.raises(SystemExit) as end:
        main(["bench", "--gpu", *words])
    assert end.value.code in (1, 2)
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert said in err


def test_what_goes_with_gpu_alone(capsys, tmp_path):
    for words in (["--decide"], ["--minutes", "3"], ["--from"]):
        with pytest.raises(SystemExit):
            main(["bench", *words])
        assert capsys.readouterr().err.count("\n") == 1


def test_figures_of_another_bench_are_refused(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"machine": {}, "groups": {}}, indent=1))
    for words in (["--from", str(figures)], ["--tiny", "--only", "stream", "--json", str(figures)]):
        with pytest.raises(SystemExit):
            main(["bench", "--gpu", *words])
        err = capsys.readouterr().err
        assert "is no figure of a run on a GPU" in err
        assert err.count("\n") == 1
    assert json.loads(figures.read_text()) == {"machine": {}, "groups": {}}


def test_the_rest_of_the_line_is_names_of_steps(tmp_path, capsys):
    """The order is theirs, not that of the table; a second run goes on in the same file."""
    figures = tmp_path / "gpu.jsonl"
    for names in ("stream, short,stream", "encoder"):
        assert main(["bench", "--gpu", "--tiny", "--only", names, "--json", str(figures)]) == 0
        assert f"figures are in {figures}" in capsys.readouterr().out
    assert list(record.steps(record.read(figures))) == ["stream", "short", "encoder"]


def test_the_recipes_that_are_measured_are_the_shipped_ones():
    shipped = {
        "stage 1": ["--config", "stage1_vision_adaptation"],
        "stage 4": ["--config", "stage4_video"],
        "LoRA": ["--config", "lora", "--start.model", "m"],
        "QLoRA": ["--config", "qlora", "--start.model", "m"],
    }
    for name, recipe in recipes("m").items():
        theirs = read_recipe(shipped[name])
        assert recipe.rates == theirs.rates, name
        assert recipe.adapter == theirs.adapter, name
        assert recipe.checkpointing == theirs.checkpointing, name
        assert recipe.start.quantize == theirs.start.quantize, name
        same = replace(theirs.batch, samples=recipe.batch.samples, overlong="skip")
        assert recipe.batch == same, name
    assert set(shipped) == set(recipes("m"))


def test_a_cache_of_fixed_size_gives_the_same_answer(tmp_path):
    model = random_model(tiny_config(), place(tmp_path))
    asked = question(model, 40)
    embeds, expected = whole(model, asked), answer(model, asked, 8)
    ids, s = fixed_decode(model, embeds, 8, "cpu")
    assert ids == expected
    assert s > 0
    assert fixed_decode(model, embeds.flip(1), 8, "cpu")[0] != expected, "another prompt"


class Asked(TorchDispatchMode):
    """Notes what makes a program wait for its device: numbers, and sizes that depend on them."""

    WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").partition(".")[0]
        self.found += [name] if name in self.WAITS else []
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_a_step_of_a_cuda_graph_asks_the_device_for_nothing(tmp_path):
    model = random_model(tiny_config(), place(tmp_path))
    fixed = FixedAnswer(model, whole(model, question(model, 40)), 8, "cpu")
    with Asked() as asked:
        fixed.step()
        fixed.step()
        assert not asked.found
        int(fixed.token)
        fixed.token.nonzero()
        assert asked.found == ["_local_scalar_dense", "nonzero"], "it would be noticed"


def test_transformers_model_on_the_same_weights(tmp_path):
    model = random_model(tiny_config(), place(tmp_path))
    stock = twin(model, place(tmp_path))
    embeds = whole(model, question(model, 40))
    with torch.no_grad():
        found, expected = (side(inputs_embeds=embeds).logits for side in (model, stock))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        next(model.language.model.layers[0].parameters()).data += 0.1
        moved = stock(inputs_embeds=embeds).logits
    assert not torch.allclose(moved, expected), "the weights are one and the same"


@contextmanager
def too_much(monkeypatch, times: int):
    """Within it the encoder runs out of memory so many times."""
    forward, left = VisionEncoder.forward, [times]

    def short(self, pixels_NP, grids):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, pixels_NP, grids)

    with monkeypatch.context() as patch:
        patch.setattr(VisionEncoder, "forward", short)
        yield


@pytest.mark.parametrize(("times", "said"), [(1, "Memory was short"), (9, "ran out of memory")])
def test_memory_that_is_short_for_a_while(monkeypatch, times, said):
    refused, after = short_of_memory("cpu", too_much(monkeypatch, times))
    assert refused.ok
    assert said in refused.said
    assert after.ok


def test_memory_that_is_not_short_is_noticed(monkeypatch):
    refused, _ = short_of_memory("cpu", too_much(monkeypatch, 0))
    assert not refused.ok
    assert refused.said == "answered whole"


def test_ceilings_and_times_of_a_cpu():
    assert peak_bytes("cpu") is None
    low, median, high = timed_s(lambda: torch.ones(9).sum(), "cpu")
    assert 0 < low <= median <= high
    product, copy = ceilings("cpu", tiny=True).rows()
    assert product.per_s > 0
    assert copy.per_s > 0


def test_operations_of_the_encoder():
    """The released one: 412 M weights in its layers, each multiplied once for every patch."""
    from vl3.config import VL3VisionConfig

    grid = Grid(frames=1, rows=1, cols=2, merge=1)
    weights = 27 * (4 * 1152**2 + 2 * 1152 * 4304) + 588 * 1152
    attention = 27 * 4 * 2 * 1152
    assert encoder_flops(VL3VisionConfig(), grid) == 2 * (2 * weights + attention)
