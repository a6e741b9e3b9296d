"""Steps of a run on a GPU for the tests of what runs them: quick, failing, late, dying ones."""

import os
import signal
import subprocess
import sys
import time

from train_cli.bench.gpu.record import Check, Rate
from train_cli.bench.gpu.steps import Step

FOREVER_S = 600


def quick(place, word="quick"):
    print("libraries print what they like")  # which must not get among the rows
    yield Rate(work=f"{word} on {place.device}", per_s=1.0, unit="row/s")


def wrong(place):
    yield Check(work="one is two", ok=1 == 2, said="it is not")


def failing(place):
    yield Rate(work="before it fails", per_s=1.0, unit="row/s")
    raise RuntimeError("CUDA error: an illegal\nmemory access was encountered")


def dying(place):
    yield Rate(work="before it dies", per_s=1.0, unit="row/s")
    os.kill(os.getpid(), signal.SIGSEGV)


def hanging(place):
    """Never ends, nor does the process that it starts, whose id is in the folder of the test."""
    other = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"])
    yield Rate(work=f"{os.getpid()} {other.pid}", per_s=1.0, unit="row/s")
    time.sleep(FOREVER_S)


def step(name: str, limit_s: float = 120, about_s: float = 0.1, **more) -> Step:
    function = f"gpu_steps:{name.replace(' ', ':')}"
    options = {"about": f"is {name}", "function": function, "needs": ()} | more
    return Step(name=name, about_s=about_s, limit_s=limit_s, **options)
