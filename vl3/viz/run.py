"""The data of the run details view: where the time of an answer went, and its prompt with slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from vl3.values import Ledger, PromptSegment, Reply


def data(
    reply: Reply,
    pieces: Sequence[PromptSegment],
    *,
    rows: Sequence[tuple[str, str]] = (),
    blocks: Sequence[Mapping[str, str]] = (),
    source: str = "",
) -> dict:
    """What mount() of assets/web/views takes to show how a reply was made.

    pieces: its prompt, of vl3.studio.Studio.pieces
    rows: further facts, as pairs of name and value
    blocks: texts to read and copy besides the prompt, each with title and text: settings, code
    """
    greedy = not reply.settings.get("temperature")
    return {
        "view": "run",
        "source": source,
        "stages": stages(reply.ledger),
        "total_s": reply.ledger.total_s,
        "first_token_s": reply.ledger.first_token_s,
        "tokens_per_s": reply.ledger.tokens_per_s,
        "new_tokens": reply.ledger.new_tokens,
        "prompt_tokens": reply.ledger.prompt_tokens,
        "reused_tokens": reply.ledger.reused_tokens,
        "kept_tokens": reply.ledger.kept_tokens,
        "sound_tokens": reply.ledger.sound_tokens,
        "reused_clips": reply.ledger.reused_clips,
        "seed": None if greedy else reply.settings.get("seed"),
        "stopped": reply.stopped,
        "truncated": reply.truncated,
        "notes": list(reply.notes),
        "prompt": reply.prompt,
        "pieces": [asdict(piece) for piece in pieces],
        "rows": [list(row) for row in rows],
        "blocks": [dict(block) for block in blocks],
    }


def stages(ledger: Ledger, hears: bool | None = None) -> list[dict]:
    """The parts of a reply in order, each with name and seconds; together they are the total.

    hears: whether hearing is one of them; None where something was heard
    The rest is what lies between them: reading headers, resizing plans, writing the prompt.
    """
    hears = ledger.sound_tokens > 0 if hears is None else hears
    timed = {
        "Reading frames": ledger.decode_s,
        "Encoding video": ledger.encode_s,
        **({"Hearing sound": ledger.hear_s} if hears else {}),
        "Removing repeated patches": ledger.prune_s,
        "Reading the prompt": ledger.prefill_s,
        "Answering": ledger.total_s - ledger.first_token_s,
    }
    rest = max(ledger.total_s - sum(timed.values()), 0.0)
    return [{"name": name, "time_s": time_s} for name, time_s in (*timed.items(), ("Rest", rest))]
