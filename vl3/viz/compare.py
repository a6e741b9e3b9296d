"""The data of the compare view: two answers to one question, and what each of them was made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

import numpy as np

from vl3.values import Clip, Keep, Reply
from vl3.viz.pack import packed, sheet
from vl3.viz.run import stages

# A word with the space before it; in scripts written without spaces, a character.
_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\s*(?:[{_NO_SPACES}]|[^\s{_NO_SPACES}]+)")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Side:
    """One of the two runs.

    name: what sets it apart, as people read it
    clips, keeps: of every clip or image of the prompt, in its order; frames at the size of the grid
    """

    name: str
    reply: Reply
    clips: tuple[Clip, ...]
    keeps: tuple[Keep, ...]


def data(first: Side, second: Side, question: str = "", frame: int = 0) -> dict:
    """What mount() of assets/web/views takes to show two runs beside each other.

    frame: the one of the first run's first clip to start with
    Raises: ValueError when the runs do not show as many clips and images.
    """
    if len(first.clips) != len(second.clips):
        raise ValueError(
            f"the first run saw {len(first.clips)} clips and images, the second "
            f"{len(second.clips)}; compare runs that both came to their answer"
        )
    sheets: list[dict] = []
    shown: list[Clip] = []

    def sheet_of(clip: Clip) -> int:
        for index, other in enumerate(shown):
            if np.array_equal(other.frames_TYX3, clip.frames_TYX3):
                return index
        shown.append(clip)
        sheets.append(sheet(clip.frames_TYX3))
        return len(sheets) - 1

    sides = (first, second)
    return {
        "view": "compare",
        "question": question,
        "sides": [
            {
                "name": side.name,
                "answer": words,
                "stopped": side.reply.stopped,
                "truncated": side.reply.truncated,
                "notes": list(side.reply.notes),
                "media": [
                    _medium(clip, keep, sheet_of(clip))
                    for clip, keep in zip(side.clips, side.keeps, strict=True)
                ],
            }
            for side, words in zip(sides, differences(first.reply.text, second.reply.text))
        ],
        "sheets": sheets,
        "rows": rows(first.reply, second.reply),
        "frame": frame,
    }


def _medium(clip: Clip, keep: Keep, sheet_index: int) -> dict:
    (grid,) = keep.grids
    state_M = keep.keep_M.numpy().astype(np.uint8) + keep.placeholder_M.numpy()
    return {
        "source": clip.source,
        "times_s": None if clip.times_s is None else list(clip.times_s),
        "frames": grid.frames,
        "token_rows": grid.token_rows,
        "token_cols": grid.token_cols,
        "sheet": sheet_index,
        "state": packed(state_M),  # 0 removed, 1 kept, 2 placeholder
        "kept": keep.kept_per_frame[0],
    }


def differences(first: str, second: str) -> tuple[list, ...]:
    """Both texts in stretches [is only in this one, text], compared word by word.

    Joined, the stretches are the text without the space at its end.
    """
    words = [_WORD.findall(text) for text in (first, second)]
    bare = [[word.strip() for word in side] for side in words]
    # Of long texts difflib takes rare words to find its way; what both begin with needs none.
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*bare)))
    told = tuple([[False, "".join(side[:same])]] if same else [] for side in words)
    for kind, *bounds in SequenceMatcher(None, bare[0][same:], bare[1][same:]).get_opcodes():
        for side, out, (start, end) in zip(words, told, (bounds[:2], bounds[2:])):
            if start < end:
                out.append([kind != "equal", "".join(side[same + start : same + end])])
    return told


def rows(first: Reply, second: Reply) -> list[dict]:
    """What both runs cost: name, unit ("", "s" or "bytes") and one value for each."""
    ledgers = [first.ledger, second.ledger]
    counted = {
        "Frames": "frames",
        "Visual tokens before pruning": "visual_tokens",
        "Visual tokens kept": "kept_tokens",
        "Prompt tokens": "prompt_tokens",
        "Answer tokens": "new_tokens",
    }
    hears = any(ledger.sound_tokens for ledger in ledgers)
    if hears:
        counted["Tokens of sound"] = "sound_tokens"
    counts = [
        (name, "", [getattr(ledger, field) for ledger in ledgers])
        for name, field in counted.items()
    ]
    times = [
        (one["name"], "s", [one["time_s"], other["time_s"]])
        for one, other in zip(*(stages(ledger, hears) for ledger in ledgers), strict=True)
    ]
    total = ("Total", "s", [ledger.total_s for ledger in ledgers])
    memory = ("Peak memory", "bytes", [ledger.peak_memory_bytes for ledger in ledgers])
    return [
        {"name": name, "unit": unit, "values": values}
        for name, unit, values in (*counts, *times, total, memory)
    ]
