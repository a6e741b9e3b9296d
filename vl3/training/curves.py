"""Two loss curves and their figures as one page of HTML that opens anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from vl3.data.html_report import CSS, POLICY
from vl3.training.compare import FLOOR, WIDTH, Curve, Verdict, sentence, tables

WIDTH_PX, HEIGHT_PX = 1120, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 36
TICKS = 8
OWN_CSS = """
svg { display: block; width: 100%; min-width: 680px; height: auto; }
svg text { fill: var(--faint); font-size: 13px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); } .band { fill: var(--accent); opacity: .14; }
.one, .two { fill: none; stroke-width: 2.25; stroke-linejoin: round; }
.one { stroke: var(--warn); } .two { stroke: var(--accent); }
.raw { stroke-width: 1; opacity: .3; }
.parted { stroke: var(--bad); stroke-dasharray: 5 4; } svg text.at { fill: var(--bad); }
.key { display: inline-block; width: 22px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: middle; background: var(--accent); }
.legend .key { padding: 0; } .key.run { background: var(--warn); }
.key.area { height: 12px; opacity: .25; }
"""


def page(run: Curve, reference: Curve, verdict: Verdict) -> str:
    """The verdict, both curves with the band around the reference, and the tables."""
    parted = verdict.diverged is not None
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)} and {escape(reference.name)}</title>"
        f"<style>{CSS}{OWN_CSS}</style><main>"
        f"<h1>{escape(run.name)} and {escape(reference.name)}</h1>"
        f'<p class="verdict{" bad" if parted else ""}">'
        f"{f'diverged at step {verdict.diverged}' if parted else 'within band'}</p>"
        f"<p>{escape(sentence(run, reference, verdict))}</p>"
        f'<h2>Loss by step</h2><div class="card wide">{_chart(run, reference, verdict)}'
        f"{_legend(run, reference)}</div>{_tables(run, reference)}"
        f"<footer>Written by <code>python -m train_cli compare</code>. Bold lines are means over "
        f"{verdict.window} logged steps. The band is {WIDTH:g} times the noise of the reference, "
        f"at least {100 * FLOOR:g} % of its loss.</footer></main></html>\n"
    )


def _chart(run: Curve, reference: Curve, verdict: Verdict) -> str:
    steps, smoothed = verdict.steps, (*verdict.run, *verdict.reference)
    if len(steps) < 2:
        return "<p>There is nothing to draw before that step.</p>"
    raw = [[curve.losses[step] for step in steps] for curve in (run, reference)]
    edges = [(s, m + b) for s, m, b in zip(steps, verdict.reference, verdict.band)]
    # Single spikes of the raw losses may leave the picture.
    highest = 1.08 * max(1e-6, *smoothed, *(loss for _, loss in edges))
    first, last = steps[0], max(steps[-1], verdict.diverged or 0, steps[0] + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH_PX - LEFT - RIGHT)

    def y(loss: float) -> float:
        share = max(loss, 0.0) / highest
        return HEIGHT_PX - BOTTOM - share * (HEIGHT_PX - TOP - BOTTOM)

    def line(kind: str, losses: Sequence[float]) -> str:
        points = " ".join(f"{x(s):.1f},{y(loss):.1f}" for s, loss in zip(steps, losses))
        return f'<polyline class="{kind}" points="{points}"/>'

    edges += [(s, m - b) for s, m, b in zip(steps, verdict.reference, verdict.band)][::-1]
    area = " ".join(f"{x(s):.1f},{y(loss):.1f}" for s, loss in edges)
    inside = f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH_PX}" height="{HEIGHT_PX - TOP - BOTTOM}"/>'
    parts = [f'<clipPath id="box">{inside}</clipPath>', _axes(x, y, first, last, highest)]
    parts.append(f'<polygon class="band" points="{area}"/>')
    parts.append(f'<g clip-path="url(#box)">{line("one raw", raw[0])}{line("two raw", raw[1])}</g>')
    parts += [line("two", verdict.reference), line("one", verdict.run)]
    if verdict.diverged is not None:
        at, is_right = x(verdict.diverged), x(verdict.diverged) > WIDTH_PX * 0.8
        anchor = f'x="{at - 6:.1f}" text-anchor="end"' if is_right else f'x="{at + 6:.1f}"'
        parts.append(
            f'<line class="parted" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT_PX - BOTTOM}"/>'
            f'<text class="at" {anchor} y="{TOP + 12}">diverged at step {verdict.diverged}</text>'
        )
    label = escape(sentence(run, reference, verdict), quote=True)
    box = f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}"'
    return f'<svg {box} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(x, y, first: int, last: int, highest: float) -> str:
    parts = []
    for loss in _round_numbers(0.0, highest):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH_PX - RIGHT}" y1="{y(loss):.1f}" '
            f'y2="{y(loss):.1f}"/><text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" '
            f'text-anchor="end">{loss:.4g}</text>'
        )
    for step in _round_numbers(first, last):
        parts.append(
            f'<text x="{x(step):.1f}" y="{HEIGHT_PX - 12}" text-anchor="middle">{step:g}</text>'
        )
    return "".join(parts)


def _round_numbers(low: float, high: float) -> list[float]:
    """About TICKS multiples of 1, 2 or 5 times a power of ten between two numbers."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    numbers = range(math.ceil(low / apart), math.floor(high / apart) + 1)
    return [round(number * apart, 10) for number in numbers]


def _legend(run: Curve, reference: Curve) -> str:
    return (
        f'<p class="legend"><span><i class="key run"></i>{escape(run.name)}</span>'
        f'<span><i class="key"></i>{escape(reference.name)}, the reference</span>'
        '<span><i class="key area"></i>band</span></p>'
    )


def _tables(run: Curve, reference: Curve) -> str:
    parts = []
    for title, rows in tables(run, reference).items():
        lines = "".join(
            f'<tr><td>{escape(name)}<td class="num">{figure(one)}<td class="num">{figure(other)}'
            for name, one, other in rows
        )
        parts.append(
            f'<h2>{escape(title.capitalize())}</h2><div class="card wide"><table><tr><th>'
            f'<th class="num">{escape(run.name)}<th class="num">{escape(reference.name)}{lines}'
            "</table></div>"
        )
    return "".join(parts)


def figure(value: float | None) -> str:
    """A number as the tables show it."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
