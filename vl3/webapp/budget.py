"""The cost of the current video: its plan under the fields of the page, and the budget line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from vl3.values import Plan, SoundPlan, VisualContext
from vl3.webapp import form, text_format
from vl3.webapp.conversation import Attachment, reply_about
from vl3.webapp.sessions import Session


def planned(
    visitor: Session, item: Attachment, reading: Mapping, heard: Mapping | None = None
) -> Attachment:
    """The attachment read as the page says (start, end, fps, max_frames, budget_tokens).

    heard: whether its sound is, as Studio.plan takes it; nothing for a model without an ear
    """
    if item.kind != "image":
        start_s, end_s = form.moments(reading["start"], reading["end"])
        item = replace(item, start_s=start_s, end_s=end_s)
    if item.kind == "video":
        item = replace(
            item,
            fps=form.value("fps", reading["fps"]),
            max_frames=form.value("max_frames", reading["max_frames"]),
        )
    if item.kind != "audio":
        tokens = form.value("budget_tokens", reading["budget_tokens"])
        item = replace(item, budget_tokens=tokens)
    plan = visitor.studio.plan(
        item.path,
        fps=item.fps,
        max_frames=item.max_frames,
        start=item.start_s,
        end=item.end_s,
        budget_tokens=item.budget_tokens,
        **(heard or {}),
    )
    return replace(item, plan=plan)


def line(
    visitor: Session,
    item: Attachment,
    card: Mapping,
    rule: dict | None,
    room: int,
    is_asked: bool,
) -> text_format.Budget:
    """The budget line of a planned attachment.

    rule: all settings of the pruner, None for off; room: tokens that fit beside the answer
    is_asked: whether pruning is chosen on the page, which this model may not do
    """
    if isinstance(item.plan, SoundPlan):
        return text_format.sound_budget(item.plan, room)
    known = visitor.studio.settings
    default = card["defaults"]["budget_tokens"]
    is_own = item.budget_tokens not in (None, default)
    limits = text_format.Limits(
        room=room,
        budget=item.budget_tokens or default,
        least=known.min_tokens,
        prunes=not card["unpruned"],
        most=known.frame_tokens if is_own else None,  # of interest where the budget was changed
    )
    found = text_format.budget(cast(Plan, item.plan), limits, _seen(visitor, item, rule, card))
    why = card["unpruned"] if is_asked else ""  # for pruning, and it is not done
    return replace(found, notes=(*found.notes, why)) if why else found


def _seen(
    visitor: Session, item: Attachment, rule: dict | None, card: Mapping
) -> VisualContext | None:
    """What the pruner leaves of the attachment; None where it has not been run with this rule."""
    if visitor.foreseen and visitor.foreseen[:2] == (item, rule):
        return visitor.foreseen[2]
    found = reply_about(visitor.turns, item, card)
    return found[0].seen[found[1]] if found and found[0].settings["prune"] == rule else None
