"""Two runs side by side: did they learn alike, and if not, from which step on.

The band. Both losses are smoothed by a mean over a window of logged steps around each. The noise is
how far the reference's own losses lie from its smoothed ones: the median distance over the five
windows around a step, times 1.48 (a standard deviation where the noise is normal, and unmoved by
single spikes). A run is within the band while its smoothed loss is at most WIDTH noises away from
the reference's, or FLOOR of that one where it is hardly noisy. It has diverged at the first step,
to within half a window, from which it stays outside for a whole window of logged steps, or half of
one at the end; or at the first loss that is no number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vl3.training.run import METRICS

WIDTH, FLOOR = 3.0, 0.02
FEWEST = 8  # logged steps that both runs need
LONGEST_WINDOW = 25


@dataclass(frozen=True, slots=True)
class Curve:
    """The log of a run: the loss at each logged step, and every other figure at its last value."""

    name: str
    losses: dict[int, float]
    last: dict[str, float]
    tokens_per_s: float | None

    def last_of(self, kind: str) -> dict[str, float]:
        """The last figures named kind/..., by what follows."""
        prefix = f"{kind}/"
        return {n.removeprefix(prefix): v for n, v in self.last.items() if n.startswith(prefix)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run compares with a reference, step by step over the steps both logged.

    run, reference: smoothed losses; band: distance allowed; diverged: first step outside, or None;
    broken: first step whose loss is no number, or None; steps end before it
    """

    steps: tuple[int, ...]
    run: tuple[float, ...]
    reference: tuple[float, ...]
    band: tuple[float, ...]
    window: int
    diverged: int | None
    broken: int | None


def read(path: Path) -> Curve:
    """The log of a run folder, of one of its checkpoints, or a metrics file.

    A step that was logged twice, before and after an interruption, counts as the second time.
    Raises: FileNotFoundError or ValueError in one sentence.
    """
    file = _file(path)
    losses, speeds = {}, []
    last: dict = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            step = int(entry.pop("step"))
            if "loss" in entry:
                losses[step] = float(entry["loss"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"line {number} of {file} is no line of metrics: {error}") from error
        last |= {name: value for name, value in entry.items() if isinstance(value, int | float)}
        if "tokens_per_s" in entry:
            speeds.append(entry["tokens_per_s"])
    if not losses:
        raise ValueError(f"{file} logs no loss")
    name = file.stem if file.name != METRICS else file.parent.name
    return Curve(name, dict(sorted(losses.items())), last, median(speeds) if speeds else None)


def _file(path: Path) -> Path:
    """The metrics file that a path means."""
    for file in (path, path / METRICS, path.parent / METRICS):
        if file.is_file() and (file == path or path.is_dir()):
            return file
    raise FileNotFoundError(f"{path} is no run: it has no {METRICS}")


def compare(run: Curve, reference: Curve) -> Verdict:
    """Whether the run learned as the reference did.

    Raises: ValueError where they share too few logged steps to tell.
    """
    steps = tuple(sorted(run.losses.keys() & reference.losses.keys()))
    if len(steps) < FEWEST:
        raise ValueError(
            f"{run.name} and {reference.name} share {len(steps)} logged steps, and {FEWEST} are "
            "needed; log as often (log_every) and train longer"
        )
    if not all(math.isfinite(reference.losses[step]) for step in steps):
        raise ValueError(f"{reference.name} has losses that are no numbers; it is no reference")
    broken = next((step for step in steps if not math.isfinite(run.losses[step])), None)
    usable = tuple(step for step in steps if broken is None or step < broken)
    window = max(3, min(LONGEST_WINDOW, len(steps) // 8))
    ours = smooth([run.losses[step] for step in usable], window)
    theirs = [reference.losses[step] for step in usable]
    centre = smooth(theirs, window)
    noise = _noise(theirs, centre, window)
    band = [max(WIDTH * sigma, FLOOR * loss) for sigma, loss in zip(noise, centre)]
    diverged = _diverged(usable, ours, centre, band, window) or broken
    return Verdict(usable, tuple(ours), tuple(centre), tuple(band), window, diverged, broken)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Means over the window around each value, shorter at both ends."""
    half = window // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _noise(values: Sequence[float], centre: Sequence[float], window: int) -> list[float]:
    """A robust standard deviation of the values about their centre, near each of them."""
    off = [abs(value - middle) for value, middle in zip(values, centre)]
    reach = 5 * window // 2
    return [1.4826 * median(off[max(0, i - reach) : i + reach + 1]) for i in range(len(off))]


def _diverged(steps, ours, centre, band, window: int) -> int | None:
    """The first step of a stretch outside the band that is long enough, or that ends the run."""
    start = None
    for index, (loss, middle, width) in enumerate(zip(ours, centre, band)):
        if abs(loss - middle) <= width:
            start = None
            continue
        start = index if start is None else start
        if index - start + 1 >= (window if index + 1 < len(steps) else window // 2):
            return steps[start]
    return None


def sentence(run: Curve, reference: Curve, verdict: Verdict) -> str:
    """The verdict in words."""
    if verdict.broken is not None and verdict.diverged == verdict.broken:
        return f"{run.name} diverged at step {verdict.broken}: its loss is no number there."
    shared = f"{len(verdict.steps)} shared logged steps, up to {verdict.steps[-1]}"
    if verdict.diverged is None:
        return f"{run.name} is within the band of {reference.name} ({shared})."
    at = verdict.steps.index(verdict.diverged)
    ours, theirs = verdict.run[at], verdict.reference[at]
    side = "above" if ours > theirs else "below"
    return (
        f"{run.name} diverged at step {verdict.diverged}: from there on it lies {side} "
        f"{reference.name} ({ours:.3g} and {theirs:.3g}; a distance of {verdict.band[at]:.2g} is "
        f"allowed; {shared})."
    )


def tables(run: Curve, reference: Curve) -> dict[str, list[tuple[str, float | None, float | None]]]:
    """Rows (name, of the run, of the reference) under a title each: last losses, answers, speed."""

    def rows(kind: str) -> list[tuple[str, float | None, float | None]]:
        one, other = run.last_of(kind), reference.last_of(kind)
        return [
            (name, one.get(name), other.get(name)) for name in sorted(one.keys() | other.keys())
        ]

    speeds = [("tokens/s, median", run.tokens_per_s, reference.tokens_per_s)]
    found = {
        "last loss by data set": rows("loss"),
        "held-out answers right": rows("eval"),
        "training answers right": rows("right"),
        "speed": speeds if any(speeds[0][1:]) else [],
    }
    return {title: lines for title, lines in found.items() if lines}
