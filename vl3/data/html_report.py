"""The report on data sets as one page of HTML that opens anywhere: no scripts, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from vl3.data.preview import Frame, MediaPreview, Preview, TextPiece
from vl3.data.report import Report, histogram
from vl3.data.rules import RULES, number

CSS = """
:root { color-scheme: light dark; --page: #fbfbfd; --card: #fff; --text: #16181d; --faint: #5d6470;
  --line: #e3e5ea; --accent: #3448c5; --soft: #eef0fd; --learned: #0b6b4b; --learned-soft: #d8f3e6;
  --bad: #b42318; --bad-soft: #fdeceb; --warn: #9a3412; --warn-soft: #fff4ec;
  --dark: #fff; --hatch: #9aa1ad; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1116; --card: #171a21; --text: #e7e9ee;
  --faint: #a3abb8; --line: #2a2f3a; --accent: #a5b4fc; --soft: #23284a; --learned: #7ee2b8;
  --learned-soft: #12392b; --bad: #fda29b; --bad-soft: #3b1715; --warn: #fdba74;
  --warn-soft: #3a2415; --dark: #0b0d11;
  --hatch: #5b6372; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 24px 72px; }
h1 { font-size: 1.7rem; letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.1rem; letter-spacing: -.01em; margin: 44px 0 12px; }
h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
p { margin: 4px 0; }
.faint, .tile span, th, figcaption { color: var(--faint); }
.verdict { display: inline-block; margin-top: 14px; padding: 5px 14px; border-radius: 999px;
  font-weight: 600; background: var(--learned-soft); color: var(--learned); }
.verdict.bad { background: var(--bad-soft); color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 22px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 1.45rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span { font-size: .85rem; }
.card { padding: 16px 18px; margin-top: 14px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.rules td:first-child, .rules .num { width: 1%; } .rules .num { padding-left: 18px; }
th { font-weight: 500; font-size: .85rem; }
.num { text-align: right; white-space: nowrap; }
.code { font: 600 .8rem/1 ui-monospace, SFMono-Regular, Menlo, monospace; padding: 4px 7px;
  border-radius: 6px; background: var(--warn-soft); color: var(--warn); white-space: nowrap; }
.code.e { background: var(--bad-soft); color: var(--bad); }
.lines { margin: 0; padding: 0; list-style: none; font: .85rem/1.55 ui-monospace, SFMono-Regular,
  Menlo, monospace; }
.lines li { padding: 3px 0; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 14px; }
.charts .card { margin: 0; }
.bars { display: flex; align-items: flex-end; gap: 4px; height: 120px; margin: 12px 0 0; }
.bar { flex: 1; min-width: 0; height: 100%; display: flex; flex-direction: column;
  justify-content: flex-end; align-items: stretch; text-align: center; font-size: .72rem; }
.bar i { display: block; background: var(--accent); border-radius: 3px 3px 0 0; }
.axis { display: flex; gap: 4px; border-top: 1px solid var(--line); padding-top: 4px; }
.axis span { flex: 1; min-width: 0; text-align: center; font-size: .7rem; color: var(--faint); }
.sample header { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; }
.sample header p { margin: 0; font-size: .85rem; font-variant-numeric: tabular-nums; }
.medium { font-size: .85rem; margin: 14px 0 6px; overflow-wrap: anywhere; }
.note { font-size: .85rem; color: var(--warn); margin: 0 0 6px; overflow-wrap: anywhere; }
.frames { display: flex; gap: 10px; overflow-x: auto; padding-bottom: 6px; }
.frames:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
figure { margin: 0; flex: none; max-width: 100%; }
figure img { display: block; max-width: 100%; max-height: 224px; height: auto;
  border-radius: 6px;
  background: repeating-linear-gradient(45deg, var(--hatch) 0 1px, var(--dark) 1px 6px); }
figure img.small { image-rendering: pixelated; }
figcaption { font-size: .75rem; padding-top: 3px; font-variant-numeric: tabular-nums; }
figcaption b { color: var(--text); font-weight: 600; }
.conversation { margin-top: 12px; padding: 12px 14px; border-radius: 8px; background: var(--page);
  border: 1px solid var(--line); max-height: 21rem; overflow: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font: .82rem/1.95 ui-monospace, SFMono-Regular, Menlo, monospace; }
.conversation:focus-visible { outline: 2px solid var(--accent); }
.t { padding: 2px 0; border-right: 1px solid var(--line); }
.l { background: var(--learned-soft); color: var(--learned); border-right-color: var(--page); }
.s { color: var(--faint); } .s.l { color: var(--learned); }
.v { background: var(--soft); color: var(--accent); border-radius: 5px; padding: 2px 6px;
  white-space: nowrap; font-size: .75rem; }
.nl { opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: .85rem; color: var(--faint); }
.legend span span { font: .82rem/1.9 ui-monospace, SFMono-Regular, Menlo, monospace;
  padding: 2px 6px; margin-right: 4px; }
footer { margin-top: 44px; font-size: .85rem; color: var(--faint); }
@media print { .conversation { max-height: none; } .frames { flex-wrap: wrap; } }
"""
# Nothing can be fetched from this page, even if a text of the data got around the escaping.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SMALL_PX = 140


def html_report(
    report: Report, views: Sequence[Preview], *, files: Sequence[str], model: str
) -> str:
    """The page: counts, rules, token histograms, samples as the model sees them, the longest."""
    parts = [
        _head(report, files, model),
        _rules(report),
        _charts(report),
        _samples(views),
        _longest(report),
        _first(report),
        "<footer>Written by <code>python -m train_cli validate</code>. Visual tokens are counted "
        "before pruning.</footer>",
    ]
    title = escape(f"Data check: {', '.join(files)}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(report: Report, files: Sequence[str], model: str) -> str:
    bad, total = report.total_bad, report.total
    words = f"{number(bad)} of {number(total)} samples cannot be learned from"
    if report.strict and bad:
        words = f"{number(bad)} of {number(total)} samples have errors or warnings"
    verdict = (
        f'<p class="verdict bad">{words}</p>'
        if bad
        else ('<p class="verdict">All samples can be learned from</p>')
    )
    tiles = [
        (number(total), "samples"),
        (f"{100 * bad / max(total, 1):.1f} %", "bad"),
        (f"{100 * report.unreadable / max(total, 1):.1f} %", "with unreadable media"),
        (number(report.images), "images"),
        (number(report.videos), f"videos, {report.seconds / 60:.1f} min"),
        (number(report.visual_tokens), "visual tokens"),
        (number(report.text_tokens), "text tokens"),
    ]
    made = "".join(f'<div class="tile"><b>{a}</b><span>{escape(b)}</span></div>' for a, b in tiles)
    return (
        f'<h1>Data check</h1><p class="faint">{escape(", ".join(files))} · measured for '
        f'{escape(model)}</p>{verdict}<div class="tiles">{made}</div>'
    )


def _rules(report: Report) -> str:
    names = list(report.samples)
    codes = sorted({code for _, code in report.codes})
    if not codes:
        return ""
    heads = "".join(f'<th class="num" scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(
        f"<tr><td>{_code(code)}</td><td>{escape(RULES[code])}</td>"
        + "".join(f'<td class="num">{_count(report.codes[name, code])}</td>' for name in names)
        + "</tr>"
        for code in codes
    )
    return (
        "<h2>What was found</h2><div class='card wide'><table class='rules'><thead><tr>"
        f"<th scope='col'>Rule</th><th scope='col'>Meaning</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _count(count: int) -> str:
    return number(count) if count else '<span class="faint">·</span>'


def _code(code: str) -> str:
    return f'<span class="code{" e" if code.startswith("E") else ""}">{escape(code)}</span>'


def _charts(report: Report) -> str:
    charts = "".join(
        f'<div class="card"><h3>{name}</h3>{_bars(histogram(digits))}</div>'
        for name, digits in (("Text tokens", report.text), ("Visual tokens", report.visual))
        if digits
    )
    return f'<h2>Length of samples</h2><div class="charts">{charts}</div>' if charts else ""


def _bars(stretches: list[tuple[int, int, int]]) -> str:
    most = max(count for _, _, count in stretches)
    bars = "".join(
        f'<div class="bar" title="{low} to {high} tokens: {count} samples">'
        f"{number(count) if count else ''}<i style='height:{_height(count, most)}'></i></div>"
        for low, high, count in stretches
    )
    axis = "".join(f"<span>{_short(low)}</span>" for low, _, _ in stretches)
    return (
        f'<div class="bars">{bars}</div><div class="axis">{axis}</div>'
        '<p class="faint" style="font-size:.75rem">samples by tokens, from the number given</p>'
    )


def _height(count: int, most: int) -> str:
    return f"max(2px, {78 * count / most:.1f}%)" if count else "0"


def _short(count: int) -> str:
    return f"{count // 1024}k" if count >= 1024 else str(count)


def _samples(views: Sequence[Preview]) -> str:
    if not views:
        return ""
    legend = (
        '<div class="legend"><span><span class="t l">learned</span>the loss counts these tokens'
        '</span><span><span class="t">read</span>read, not learned</span>'
        '<span><span class="t s">&lt;|im_end|&gt;</span>of the template</span>'
        '<span><span class="v">▦ 16</span>visual tokens of a frame</span>'
        "<span>hatched cells are pruned: the model never sees them; under each frame its time and "
        "tokens kept</span></div>"
    )
    return f"<h2>As the model sees them</h2>{legend}{''.join(map(_sample, views))}"


def _sample(view: Preview) -> str:
    conversations = "".join(
        f'<div class="conversation" tabindex="0" role="group" '
        f'aria-label="tokens of conversation {index}">'
        f"{''.join(map(_piece, conversation))}</div>"
        for index, conversation in enumerate(view.conversations, start=1)
    )
    facts = f"{number(view.tokens)} tokens, {number(view.learned)} learned"
    if view.id != view.place:
        facts = f"id {view.id} · {facts}"
    return (
        f'<section class="card sample"><header><h3>{escape(view.place)}</h3>'
        f'<p class="faint">{escape(view.dataset)} · {escape(facts)}</p></header>'
        f"{''.join(map(_medium, view.media))}{conversations}</section>"
    )


def _medium(look: MediaPreview) -> str:
    more = look.count - len(look.frames)
    frames = f"{look.count} frames" if look.count > 1 else "1 frame"
    words = f"{look.name} · {frames} of {look.width_px}×{look.height_px} px"
    words += f", {len(look.frames)} of them shown" if more else ""
    shown = "".join(_frame(frame, look) for frame in look.frames)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in look.notes)
    return (
        f'<p class="medium faint">{escape(words)}</p>{notes}'
        f'<div class="frames" tabindex="0" role="group" aria-label="frames">{shown}</div>'
    )


def _frame(frame: Frame, look: MediaPreview) -> str:
    data = base64.b64encode(frame.picture).decode()
    zoom = max(1, SMALL_PX // look.width_px)
    when = "" if frame.time_s is None else f"{round(frame.time_s, 1)} s"
    kept = f"{frame.kept} of {frame.tokens} tokens kept"
    label = f"{f'frame at {when}' if when else 'picture'}, {kept}"
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{label}" '
        f"{f' class=small style=width:{look.width_px * zoom}px' if zoom > 1 else ''}><figcaption>"
        f"{f'<b>{when}</b> · ' if when else ''}{frame.kept}/{frame.tokens}</figcaption></figure>"
    )


def _piece(piece: TextPiece) -> str:
    if piece.visual:
        return f'<span class="v" title="{piece.count} visual tokens">▦ {piece.count}</span>'
    if piece.heard:
        return f'<span class="v" title="{piece.count} tokens of sound">♪ {piece.count}</span>'
    name = "t" + " l" * piece.learned + " s" * piece.special
    text = escape(piece.text).replace("\n", '<span class="nl">⏎</span>\n')
    return f'<span class="{name}">{text}</span>'


def _longest(report: Report) -> str:
    rows = "".join(
        f'<tr><td class="num">{number(tokens)}</td><td class="num">{number(visual)}</td>'
        f"<td>{escape(place)}</td></tr>"
        for tokens, visual, place in sorted(report.longest, reverse=True)
    )
    if not rows:
        return ""
    return (
        '<h2>Longest samples</h2><div class="card wide"><table style="width:auto"><thead><tr>'
        '<th class="num" scope="col">tokens</th><th class="num" scope="col">visual</th>'
        f'<th scope="col">sample</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _first(report: Report) -> str:
    cards = "".join(
        f'<div class="card"><p>{_code(code)} {escape(RULES[code])}</p>{_list(report.first[code])}'
        "</div>"
        for code in sorted(report.first)
    )
    return f"<h2>First of each kind</h2>{cards}" if cards else ""


def _list(lines: Iterable[str]) -> str:
    return f'<ul class="lines">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'
