"""What is done on a GPU, in order of value, and how long it should take.

A step is a function of a Place that yields rows (train_cli.bench.gpu.record), in a module that is
imported when the step begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

MODEL = ("av",)  # all that knows a model reads media as well, and so imports PyAV
PACKAGES = {"av": "PyAV (pip install av)"}  # where they go by another name


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step computes.

    device: "cuda", or "cpu" for a rehearsal; tiny: on the smallest inputs
    folder: for files that steps share, which are gone afterwards
    """

    device: str
    tiny: bool
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step by its name.

    function: "module:name", or "module:name:word" for one that takes a word
    about_s: what it should take on a large card, the start of its process apart
    limit_s: when it is ended; needs: packages; gpu_only: why it says nothing on a CPU
    """

    name: str
    about: str
    function: str
    about_s: float
    limit_s: float
    needs: tuple[str, ...] = ()
    gpu_only: str = ""

    def missing(self, device: str) -> str:
        """Why the step cannot be done here; empty where it can."""
        if device == "cpu" and self.gpu_only:
            return f"on a CPU {self.gpu_only}"
        absent = [name for name in self.needs if find_spec(name) is None]
        named = ", ".join(PACKAGES.get(name, name) for name in absent)
        return f"it needs {named}, which is not installed" if absent else ""


HERE = "train_cli.bench.gpu"


def _kernel(name: str, about_s: float) -> Step:
    """The step of a fused kernel: a crash of one says nothing of the others."""
    return Step(
        name=name,
        about=f"the fused {name} on odd shapes, then beside its reference",
        function=f"{HERE}.kernels:measured:{name}",
        about_s=about_s,
        limit_s=45,
        needs=("triton",),
    )


STEPS = (
    Step(
        name="answers",
        about="ids and logits beside the CPU's, questions, stopping, beams",
        function=f"{HERE}.smoke:answers",
        about_s=20,
        limit_s=75,
        needs=MODEL,
    ),
    _kernel("difffp", 6),
    _kernel("rope2d", 6),
    _kernel("merge_keep", 6),
    _kernel("resize_patchify", 6),
    _kernel("linear_cross_entropy", 10),
    Step(
        name="encoder",
        about="the released encoder beside transformers' own",
        function=f"{HERE}.encoder:encoder",
        about_s=8,
        limit_s=40,
        needs=MODEL,
    ),
    Step(
        name="quantized",
        about="nano in nf4, int8 and nf4+int8",
        function=f"{HERE}.smoke:quantized",
        about_s=8,
        limit_s=45,
        needs=(*MODEL, "bitsandbytes"),
    ),
    Step(
        name="language",
        about="the 2B's prompts at 0, 50, 75 % pruned, and its answers token by token",
        function=f"{HERE}.language:language",
        about_s=25,
        limit_s=80,
        needs=MODEL,
    ),
    Step(
        name="file",
        about="the 2B from a file of 180 frames to its answer",
        function=f"{HERE}.cards:from_a_file",
        about_s=25,
        limit_s=75,
        needs=MODEL,
    ),
    Step(
        name="cards",
        about="the 2B in nf4 and nf4+int8 under caps of 8 to 24 GB, beside the estimate",
        function=f"{HERE}.cards:under_caps",
        about_s=35,
        limit_s=90,
        needs=(*MODEL, "bitsandbytes"),
    ),
    Step(
        name="learning",
        about="LoRA and QLoRA of nano for five steps, resumed",
        function=f"{HERE}.learning:adapters",
        about_s=25,
        limit_s=60,
        needs=(*MODEL, "peft", "accelerate"),
    ),
    Step(
        name="short",
        about="out of memory on purpose, then a normal answer",
        function=f"{HERE}.smoke:short",
        about_s=5,
        limit_s=30,
        needs=MODEL,
        gpu_only="memory cannot be made short for one process without harm to others",
    ),
    Step(
        name="stream",
        about="200 pushes of the pruner, as a live picture gives them",
        function=f"{HERE}.smoke:stream",
        about_s=5,
        limit_s=30,
        needs=MODEL,
    ),
    Step(
        name="training",
        about="a step of the 2B beside plan: stage 1, stage 4, LoRA, QLoRA",
        function=f"{HERE}.learning:memory",
        about_s=60,
        limit_s=120,
        needs=(*MODEL, "peft", "accelerate"),
    ),
    Step(
        name="7b",
        about="the 7B in bfloat16 and nf4: first token, tokens a second, memory",
        function=f"{HERE}.cards:large",
        about_s=35,
        limit_s=90,
        needs=MODEL,
    ),
    Step(
        name="compiled",
        about="torch.compile of what the kernels replace",
        function=f"{HERE}.kernels:compiled",
        about_s=50,
        limit_s=120,
        needs=("triton",),
        gpu_only="torch.compile makes other code",
    ),
)
