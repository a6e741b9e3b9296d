"""The short lines a page shows: clock times, counts, the budget, what was attached, what it cost.

Plain text only: nothing here escapes or marks up, the page that shows a line does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import cast

from vl3.bundled import NANO_AV_NAME, NANO_NAME
from vl3.units import format_bytes
from vl3.values import Ledger, Plan, SoundPlan, VisualContext

NO_BREAK = "\u00a0"
MINUS = "\u2212"
LONG_H = 100  # from then on days are counted
SHARED = (
    "Anybody who can reach this server and has the link can read the conversation as it is now "
    "and see its video, for 24 hours at most and until the app stops."
)
OPENED = "What you do here does not change the conversation it was copied from."
LOOKING = "Reading and encoding the video. The next answer reuses it."
LOOKING_BACK = "Looking into the answer."
WAITING = "This comes when the answer that is being written has ended."
FULL = "The disk of the server is full. Try again later, or tell whoever runs it."
REVOKED = "Every link that was copied in this browser has stopped working."
NO_LINKS = "No link was copied in this browser, or all were revoked."
NO_VIDEO = "Upload a video, then look inside."
NO_PICTURE = "This file is sound alone. Upload a video, then look inside."
NO_ANSWER = "Ask a question about a video, then look into the answer."
NO_RUNS = (
    "Choose what the two runs differ in, then run both. They get the question and the current "
    "video, not the conversation."
)
COMPARING = "Running both."
UNKNOWN_FAULT = (
    "This failed for a reason that the page does not know; the log of the server says it. A file "
    "that was part of it may be damaged: save it anew, or convert it, and try again."
)
UNKNOWN_SIZE = "Memory unknown: no model in such a folder, and no published size of that name."
QUANTIZATIONS = (
    ("None", "none"),
    ("8 bits (int8)", "int8"),
    ("4 bits (nf4)", "nf4"),
    ("4 bits, the rest 8 (nf4+int8)", "nf4+int8"),
)
NANO_NOTE = "nano knows only its synthetic world of coloured shapes."
NANO_AV_NOTE = "nano-av knows only its synthetic world of coloured shapes and their sounds."


def clock(time_s: float) -> str:
    """The time as a player shows it: 0:12, 1:04, 1:02:03, 5 d 03:04:05; a minus before 0."""
    if not isfinite(time_s):
        return "?"
    sign = MINUS if time_s <= -1 else ""
    minutes, seconds = divmod(int(abs(time_s) + 1e-6), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= LONG_H:
        days, hours = divmod(hours, 24)
        return f"{sign}{count(days)}{NO_BREAK}d{NO_BREAK}{hours:02d}:{minutes:02d}:{seconds:02d}"
    front = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{sign}{front}:{seconds:02d}"


def count(number: int) -> str:
    """The number with its thousands apart, never broken over two lines: 9 216."""
    return f"{number:,}".replace(",", NO_BREAK)


def plural(number: int, noun: str) -> str:
    """1 frame, 64 frames."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def before(people: int) -> str:
    """3 people are before you."""
    return f"{count(people)} {'person is' if people == 1 else 'people are'} before you."


def too_many(people: int) -> str:
    """Why a question is not taken."""
    return f"{count(people)} people are waiting for an answer already. Ask again in a few minutes."


def parameters(number: int) -> str:
    """7.6 B, 5.2 M parameters."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit} parameters"
    return plural(number, "parameter")


def spacing(plan: Plan) -> str | None:
    """One frame every 1.0 s; None where there is a single frame."""
    if plan.spacing_s is None:
        return None
    return f"one frame every {plan.spacing_s:.{1 if plan.spacing_s >= 0.95 else 2}f} s"


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget line and its bar. state: "empty", "fits", "above", "over" or "refused".

    notes: what a person must know of the plan, one sentence each
    """

    text: str
    state: str
    filled: float = 0.0
    pruned: str = ""
    notes: tuple[str, ...] = ()

    def as_value(self) -> dict:
        return {
            "text": self.text,
            "state": self.state,
            "filled": round(self.filled, 4),
            "pruned": self.pruned,
            "notes": self.notes,
        }


NO_BUDGET = Budget("", "empty")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the visual tokens of one clip.

    room: what fits beside the longest answer; budget: what the person allows, None for all of it
    least, most: of one frame by the model's rule, None for no most
    prunes: whether tokens can be left out with this model
    """

    room: int
    budget: int | None = None
    least: int = 1
    most: int | None = None
    prunes: bool = True


def budget(plan: Plan, limits: Limits, seen: VisualContext | None = None) -> Budget:
    """What the clip will cost, and whether it fits, from arithmetic alone.

    seen: what pruning leaves of it, where that is known
    """
    if plan.num_tokens + plan.sound_tokens > limits.room:
        why = over_limit(plan.num_tokens + plan.sound_tokens, limits.room, limits.prunes)
        return Budget(why, "over", 1.0, notes=plan.notes)
    limit = limits.room if limits.budget is None else min(limits.room, limits.budget)
    above = plan.num_tokens > limit
    grid = plan.grid
    tokens = f"{count(plan.num_tokens)} tokens" + ("" if above else f" of {count(limit)}")
    size = f"{grid.rows} × {grid.cols} patches"
    if plan.times_s is None:
        text = f"Image of {size} · {tokens}"
    else:
        text = f"{plural(plan.num_frames, 'frame')} of {size} · {tokens}"
        if every := spacing(plan):
            text += f" · {every}"
    text += beside(plan.sound_tokens)
    notes = (_above(plan, limits), *plan.notes) if above else (*_capped(plan, limits), *plan.notes)
    filled = min(plan.num_tokens / limit, 1.0)
    return Budget(text, "above" if above else "fits", filled, after_pruning(seen), notes)


def beside(sound_tokens: int) -> str:
    """What sound adds to a line of costs; nothing where nothing is heard."""
    return f" · {of_sound(sound_tokens)}" if sound_tokens else ""


def of_sound(tokens: int) -> str:
    """38 tokens of sound."""
    return f"{plural(tokens, 'token')} of sound"


def sound_budget(plan: SoundPlan, room: int) -> Budget:
    """What a sound by itself will cost; room: what fits beside the longest answer."""
    tokens, limit = plan.sound_tokens, count(room)
    if tokens > room:
        why = f"{of_sound(tokens)} exceed the limit {limit}. Shorten the sound."
        return Budget(why, "over", 1.0, notes=plan.notes)
    text = f"Sound of {seconds(plan.duration_s)} · {of_sound(tokens)}, of {limit} that fit"
    return Budget(text, "fits", tokens / room, notes=plan.notes)


def hears_nothing(name: str, card: Mapping) -> str:
    """Why a file without a picture is not taken by a model without an ear."""
    shown = str(card["name"]).rstrip("/").rpartition("/")[2]
    return f"{name} is sound alone, and {shown} hears nothing; load a model with an ear."


def _above(plan: Plan, limits: Limits) -> str:
    """Why the plan does not keep to the budget, and what would."""
    each, what = plan.grid.tokens_per_frame, "an image" if plan.times_s is None else "a frame"
    least = f"{what} has at least {plural(limits.least, 'token')}"
    shape = f" ({count(each)} in this shape)" if each > limits.least else ""
    budget = cast(int, limits.budget)  # nothing is above one that is not there
    most = budget // each
    if plan.times_s is None or most < 1:
        fits = f"Raise Token budget to {count(each)}"
    else:
        fits = f"{plural(most, 'frame')} would fit: lower Max frames to {count(most)}"
        fits += ", or raise Token budget"
    return f"Above the budget of {count(budget)}, because {least}{shape}. {fits}."


def _capped(plan: Plan, limits: Limits) -> tuple[str, ...]:
    """Where the model's own bound on a frame decides, and the budget does not."""
    if (
        limits.most is None
        or limits.budget is None
        or limits.budget <= limits.most * plan.num_frames
    ):
        return ()
    what = "an image" if plan.times_s is None else "a frame"
    most = plural(limits.most, "token")
    return (f"This model gives {what} about {most}, whatever the budget.",)


def after_pruning(seen: VisualContext | None) -> str:
    """after pruning: 3 871, 58 % removed; empty where pruning removed nothing."""
    if seen is None or seen.kept_tokens == seen.num_tokens:
        return ""
    removed = 1 - seen.kept_tokens / seen.num_tokens
    return f"after pruning: {count(seen.kept_tokens)}, {percent(removed)} removed"


def used(last: Mapping | None, rule: Mapping | None) -> str:
    """What the last answer and the next one are made with; None for a pruner that is off."""
    if last == rule:
        return f"The last answer used {pruner(rule)}, and so will the next one."
    return f"The last answer used {pruner(last)}, the next one will use {pruner(rule)}."


def pruner(rule: Mapping | None) -> str:
    """official at 0.1; last kept at 2, keep the later; no pruning."""
    if rule is None:
        return "no pruning"
    text = f"{rule['mode'].replace('_', ' ')} at {rule['threshold']:g}"
    return text if rule["keep"] == "earlier" else f"{text}, keep the later"


def percent(share: float) -> str:
    """58 %; what is more than nothing is not 0 %, what is less than everything not 100 %."""
    whole = round(100 * share)
    if whole == 0 < share:
        return f"under{NO_BREAK}1{NO_BREAK}%"
    if whole == 100 and share < 1:
        return f"over{NO_BREAK}99{NO_BREAK}%"
    return f"{whole}{NO_BREAK}%"


def over_limit(tokens: int, limit_tokens: int, prunes: bool = True) -> str:
    """The sentence that refuses a clip by arithmetic; prunes: whether tokens can be left out."""
    return f"{count(tokens)} tokens exceed the limit {count(limit_tokens)}. " + (
        "Lower frames per second, shorten the clip, or raise the pruning threshold."
        if prunes
        else "Lower frames per second, or shorten the clip."
    )


def attached(
    plan: Plan | SoundPlan, start_s: float | None = None, end_s: float | None = None
) -> str:
    """What a question carried: 0:00–1:04 · 64 frames · 9 216 tokens."""
    if isinstance(plan, SoundPlan):
        start_s, end_s = plan.start_s, plan.start_s + plan.duration_s
        return f"{clock(start_s)}–{clock(end_s)} · {of_sound(plan.sound_tokens)}"
    tokens = f"{count(plan.num_tokens)} tokens{beside(plan.sound_tokens)}"
    if plan.times_s is None:
        return f"image · {tokens}"
    start_s = plan.times_s[0] if start_s is None else start_s
    end_s = (plan.duration_s or plan.times_s[-1]) if end_s is None else end_s
    return f"{clock(start_s)}–{clock(end_s)} · {plural(plan.num_frames, 'frame')} · {tokens}"


def cost(ledger: Ledger) -> str:
    """The footer of an answer: 142 tokens · 38 tokens/s · first 1.4 s · 3.2 GB."""
    parts = [plural(ledger.new_tokens, "token")]
    if ledger.tokens_per_s:
        parts.append(f"{ledger.tokens_per_s:.0f} tokens/s")
    parts.append(f"first {ledger.first_token_s:.1f} s")
    if ledger.peak_memory_bytes:
        parts.append(format_bytes(ledger.peak_memory_bytes))
    return " · ".join(parts)


def pruned(ledger: Ledger) -> str:
    """9 216 → 3 871 visual tokens; empty where pruning removed nothing."""
    if ledger.kept_tokens == ledger.visual_tokens:
        return ""
    return f"{count(ledger.visual_tokens)} → {count(ledger.kept_tokens)} visual tokens"


def model(card: Mapping) -> str:
    """Which model an answer is of, in which numbers: nano · float32, VideoLLaMA3-2B · nf4."""
    parts = [str(card["name"]).rstrip("/").rpartition("/")[2], _numbers(card)]
    if card["adapter"]:
        parts.append(f"adapter {_folder(card['adapter'])}")
    return " · ".join(parts)


def _numbers(card: Mapping) -> str:
    return str(card["quantize"] or card["dtype"]).removeprefix("torch.")


def changed(card: Mapping, by_another: bool) -> str:
    """What a conversation says when another model answers from now on."""
    return f"The model was changed to {model(card)}{' by another visitor' if by_another else ''}."


def of_another(card: Mapping) -> str:
    """Why an answer of another model cannot be looked into."""
    return (
        f"This answer was given by {model(card)}, which is not loaded any more. Ask again, then "
        "look into the new answer."
    )


def model_facts(card: Mapping) -> list[str]:
    """The facts of a model card that the header shows, most telling first."""
    facts = [str(card["name"]), parameters(card["parameters"])]
    facts.append(_numbers(card))
    facts.append(f"adapter {_folder(card['adapter'])}" if card["adapter"] else "no adapter")
    facts.append(str(card["device"]))
    if card["weights_bytes"]:
        facts.append(format_bytes(card["weights_bytes"]))
    return facts


def _folder(path: str) -> str:
    """The name of a folder, with the run's before that of a checkpoint."""
    folder = Path(path)
    is_checkpoint = folder.name.startswith("checkpoint-")
    return f"{folder.parent.name}/{folder.name}" if is_checkpoint else folder.name


def model_note(card: Mapping) -> str:
    """What a person has to know about the model before believing it; often empty."""
    own = {NANO_NAME: NANO_NOTE, NANO_AV_NAME: NANO_AV_NOTE}
    return own.get(str(card.get("path"))) or str(card.get("note") or "")


def needed(fit) -> str:
    """What a model will take before it is loaded (vl3.inference.memory.MemoryPlan)."""
    need = fit.need
    return (
        f"About {format_bytes(need.weights)} for the weights, {format_bytes(need.total)} with a "
        f"long video of {count(fit.budget_tokens)} visual tokens."
    )


def media_facts(probe) -> list[str]:
    """The probe line: name, length, size, frame rate, codec, and what was set right."""
    facts = [probe.path.name]
    if probe.duration_s is not None:
        facts.append(seconds(probe.duration_s))
    facts.append(f"{probe.width_px} × {probe.height_px}")
    if probe.fps:
        facts.append(f"{probe.fps:.4g} fps")
    facts.append(probe.codec)
    if probe.rotation_deg or probe.mirrored:
        facts.append("turned upright")
    return [fact for fact in facts if fact]


def sound_facts(probe) -> list[str]:
    """The probe line of a file without a picture: name, length, codec, rate, channels."""
    facts = [probe.path.name, seconds(probe.duration_s) if probe.duration_s else ""]
    facts += [probe.codec, f"{probe.rate_hz / 1000:g} kHz"]
    facts.append(probe.layout or plural(probe.channels, "channel"))
    return [fact for fact in facts if fact]


def seconds(time_s: float) -> str:
    """A length as the probe line has it: 3.5 s, 0:12."""
    return clock(time_s) if time_s >= 10 else f"{time_s:.1f} s"
