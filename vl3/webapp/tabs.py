"""The tabs of Inspect: what each of them draws, made when it is looked at, and files of it.

What a tab draws is too large for a value of the page. It is a JSON file that the tab fetches, under
a name that cannot be guessed, kept until there is another one or the visitor leaves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from vl3.values import Keep, Patches, Reply, VisualContext
from vl3.vision import patchify
from vl3.vision.prune import keep_all, prune
from vl3.vision.token_map import slot_runs
from vl3.viz import attention, export, pictures, positions, pruning
from vl3.viz import run as run_view
from vl3.webapp import budget, form, run_details, text_format
from vl3.webapp.compare import run_both, view
from vl3.webapp.controller import Controller
from vl3.webapp.conversation import Attachment, Turn, built_on, is_by, reply_about
from vl3.webapp.errors import UserError
from vl3.webapp.sessions import Session, TabFile
from vl3.webapp.uploads import file_url

TABS = ("pruning", "positions", "attention", "compare", "run")
OF_ANSWER = ("attention", "run")
MAPS_KEPT = 6  # of those asked for, the latest; they go into the file to save as well


def opened(visitor: Session, name: object) -> None:
    """Notes which tab the visitor has open, from now on."""
    if name not in TABS:
        raise UserError("Nothing to open", "There is no tab of that name. Reload the page.")
    visitor.tab = str(name)


def draw_tab(controller: Controller, visitor: Session, rule: dict | None) -> Iterator[dict]:
    """What the open tab shows, as it comes to be.

    rule: all settings of the pruner for the next answer, None for off
    """
    name = visitor.tab
    if not name:
        return
    if name in ("pruning", "positions") and visitor.current and visitor.current.kind == "audio":
        yield {"note": text_format.NO_PICTURE}
        return
    made_of = _made_of(visitor, name)
    if made_of is None:
        yield {"note": _LACKING[name]}
        return
    turn = visitor.turns[_answered(visitor)] if name in OF_ANSWER else None
    if turn and not is_by(turn, visitor.studio.card):
        yield {"note": text_format.of_another(turn.card)}
        return
    if name in _UNMADE and (why := visitor.studio.card[_UNMADE[name]]):
        yield {"note": why}
        return
    known = visitor.tab_files.get(name)
    try:
        if known is None or known.made_of != made_of:
            yield {"note": _waiting(controller, name)}
            data, media = _MAKERS[name](controller, visitor)
            facts = {"media": media, "sizes": data.get("sizes")}
            known = TabFile(controller.uploads.keep(f"{name}.json", _json(data)), made_of, facts)
            visitor.keep_tab_file(name, known)
        if name == "pruning":
            visitor.foreseen = (visitor.current, rule, _seen(visitor, rule))
    except (ValueError, *controller.refusals) as error:  # type: ignore[misc]  # it does not follow the star
        yield {"note": str(error)}
        return
    told = _told(visitor, rule) if name == "pruning" else ""
    yield {**_value(known), "used": rule, "told": told}


# Where the card says why a model has nothing to show in a tab.
_UNMADE = {"pruning": "unpruned", "positions": "unrotated"}
_LACKING = {
    "pruning": text_format.NO_VIDEO,
    "positions": text_format.NO_VIDEO,
    "attention": text_format.NO_ANSWER,
    "compare": text_format.NO_RUNS,
    "run": text_format.NO_ANSWER,
}


def _made_of(visitor: Session, name: str) -> tuple | None:
    """All that decides what a tab shows; None where it has nothing to show."""
    if name in OF_ANSWER:
        number = _answered(visitor)
        return None if number is None else (visitor.model_number, visitor.turns[number].reply)
    if name == "compare":
        return visitor.tab_files[name].made_of if name in visitor.tab_files else None
    item = visitor.current
    if item is None:
        return None
    card = visitor.studio.card
    found = reply_about(visitor.turns, item, card) if name == "positions" else None
    return (visitor.model_number, item, found)


def _told(visitor: Session, rule: dict | None) -> str:
    """Whether the last answer about the current video was made with the settings of the page."""
    found = reply_about(visitor.turns, visitor.current)
    return text_format.used(found[0].settings["prune"], rule) if found else ""


def _value(known: TabFile) -> dict:
    return {"url": file_url(known.path), "media": known.facts["media"]}


def _waiting(controller: Controller, name: str) -> str:
    if controller.is_answering:
        return text_format.WAITING
    return text_format.LOOKING_BACK if name in OF_ANSWER else text_format.LOOKING


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _answered(visitor: Session) -> int | None:
    """The number of the last turn that has a reply."""
    numbers = [number for number, turn in enumerate(visitor.turns) if turn.reply is not None]
    return numbers[-1] if numbers else None


def _open(visitor: Session, item: Attachment) -> Any:
    """The video as the model will see it; the studio keeps it for the answer."""
    return visitor.studio.open(
        item.path,
        fps=item.fps,
        max_frames=item.max_frames,
        start=item.start_s,
        end=item.end_s,
        budget_tokens=item.budget_tokens,
    )


# what the tabs draw: data of vl3.viz, and for each clip in it the key of its file and its times


def _pruning(controller: Controller, visitor: Session) -> tuple[dict, list]:
    item = visitor.current
    video = _open(visitor, item)
    data = pruning.data(replace(video.clip, source=item.name), video.grid, None)
    return data, [_shared(item, video.clip)]


def _positions(controller: Controller, visitor: Session) -> tuple[dict, list]:
    item = visitor.current
    video, vision = _open(visitor, item), visitor.studio.model.config.vision_config
    found = reply_about(visitor.turns, item, visitor.studio.card)
    seen = found[0].seen[found[1]] if found else None
    prompt: dict[str, Any] = {}
    if seen is not None and seen.first_slots:
        spans = list(zip(seen.first_slots, seen.kept_per_step, strict=True))
        keep_M = seen.keep_M(video.grid.num_tokens)
        prompt = {"spans": spans, "keep_M": keep_M, "tokens": video.tokens}
    data = positions.data(
        video.grid,
        vision.head_channels,
        vision.rope_theta,
        times_s=video.clip.times_s,
        source=item.name,
        **prompt,
    )
    return data, [_shared(item, video.clip)]


def _attention(controller: Controller, visitor: Session) -> tuple[dict, list]:
    number = _answered(visitor)
    reply, items = visitor.turns[number].reply, built_on(visitor.turns, number)
    for item in items[: len(reply.seen)]:
        _open(visitor, item)  # it may have been dropped in between
    mean = visitor.studio.attention(reply)
    videos = visitor.studio.videos(reply)
    sounds = [
        attention.Heard(strip=controller.uploads.sound_data(item), tokens=seen.sound.tokens)
        for item, seen in zip(items, reply.seen)
        if seen.sound and seen.sound.runs
    ]
    items = [item for item in items if item.kind != "audio"]
    clips = [replace(video.clip, source=item.name) for item, video in zip(items, videos)]
    model = visitor.studio.model
    sizes = (len(model.vision.blocks), model.config.vision_config.num_attention_heads)
    _drop_maps(visitor)
    data = attention.data(
        mean, clips, sounds=sounds, vision=sizes, medium=_first_shown(visitor, items)
    )
    return data, [_shared(item, clip) for item, clip in zip(items, clips)]


def _run(controller: Controller, visitor: Session) -> tuple[dict, list]:
    number = _answered(visitor)
    turn, items = visitor.turns[number], built_on(visitor.turns, number)
    reply = turn.reply
    data = run_view.data(
        reply,
        visitor.studio.pieces(reply),
        rows=run_details.rows(turn),
        blocks=run_details.blocks(
            visitor.turns[:number], turn, turn.card or controller.card, controller.prune
        ),
    )
    media = [{"key": item.key, "times_s": seen.times_s} for item, seen in zip(items, reply.seen)]
    return data, media


_MAKERS: Mapping[str, Callable[[Controller, Session], tuple[dict, list]]] = {
    "pruning": _pruning,
    "positions": _positions,
    "attention": _attention,
    "run": _run,
}


def _shared(item: Attachment, clip: Any) -> dict:
    """By which a view and the player know that they show the same frames."""
    return {"key": item.key, "times_s": clip.times_s}


def _first_shown(visitor: Session, items: Sequence[Attachment]) -> int:
    return items.index(visitor.current) if visitor.current in items else 0


def _keep(video: Any, rule: Mapping | None) -> Keep:
    """The pruner's own mask of a video under these settings."""
    if rule is None:
        return keep_all((video.grid,))
    pixels_NP = patchify(video.clip.frames_TYX3, video.grid)
    return prune(Patches(pixels_NP=pixels_NP, grids=(video.grid,)), **rule)


def _seen(visitor: Session, rule: Mapping | None) -> VisualContext:
    """What the pruner will leave of the current video."""
    video = _open(visitor, visitor.current)
    runs = slot_runs(video.tokens, _keep(video, rule).keep_M, video.clip.times_s)
    return VisualContext(
        times_s=video.clip.times_s,
        tokens_per_step=video.tokens.tokens_per_step,
        kept_per_step=runs.counts,
        frames=video.tokens.frames,
    )


# maps of the Attention tab, one question at a time


def maps(controller: Controller, need: object) -> dict | None:
    """The maps that an Attention tab asks for, or why there are none; None for a wrong question.

    Waits while an answer is written. Beside the queue, since a map has to come at once.
    need: source, token, layer and of, as a browser says them. of is the address of what the tab
          shows, which only its visitor knows.
    """
    need = need if isinstance(need, dict) else {}
    visitor = controller.visitors.of_tab_file("attention", need.get("of"), file_url)
    known = visitor.tab_files.get("attention") if visitor else None
    if known is None or known.made_of != _made_of(visitor, "attention"):
        return None
    try:
        wanted = attention.asked(need, known.facts["sizes"])
    except ValueError:
        return None
    reply: Reply = known.made_of[1]
    try:
        found = attention.maps(visitor.studio.attention(reply, **wanted))
    except (ValueError, *controller.refusals) as error:  # type: ignore[misc]  # it does not follow the star
        return attention.refused(need, str(error))
    _keep_maps(controller, visitor, found)
    return found


_MAPS = "maps "


def _keep_maps(controller: Controller, visitor: Session, found: dict) -> None:
    numbers = [
        int(name.removeprefix(_MAPS)) for name in visitor.tab_files if name.startswith(_MAPS)
    ]
    number = max(numbers, default=-1) + 1
    visitor.keep_tab_file(
        f"{_MAPS}{number}", TabFile(controller.uploads.keep("maps.json", _json(found)), ())
    )
    visitor.drop_tab_files([f"{_MAPS}{old}" for old in numbers if old <= number - MAPS_KEPT])


def _maps(visitor: Session) -> list[TabFile]:
    return [each for name, each in list(visitor.tab_files.items()) if name.startswith(_MAPS)]


def _drop_maps(visitor: Session) -> None:
    visitor.drop_tab_files([name for name in visitor.tab_files if name.startswith(_MAPS)])


# two answers beside each other


def compare(
    controller: Controller,
    visitor: Session,
    question: str,
    reading: Mapping,
    answers: Sequence[Mapping],
    models: Sequence[Mapping | None],
    system: str,
) -> Iterator[dict]:
    """What the Compare tab shows while one question is answered under two settings, and after.

    question: empty for the last one of the conversation
    answers: for each run the settings of an answer; models: what to load for it, None for the
             page's own model
    """
    if visitor.current is None:
        raise UserError("No video yet", text_format.NO_VIDEO)
    question = question.strip() or (visitor.turns[-1].question if visitor.turns else "")
    if not question:
        raise UserError("Nothing to compare", "Write the question that both shall answer.")
    item = budget.planned(visitor, visitor.current, reading, controller.heard(answers[0]))
    one, other = [
        controller.arguments(answer) | ({"load": model} if model else {})
        for answer, model in zip(answers, models, strict=True)
    ]
    stop = visitor.comparing = Event()
    turn = Turn(question=question, attachments=(item,))
    yield {"note": text_format.WAITING if controller.is_answering else text_format.COMPARING}
    with visitor.working:
        pairs = run_both(
            visitor.studio,
            turn,
            one,
            other,
            stop,
            models=controller.models,
            system=system,
            refusals=(ValueError, *controller.refusals),
        )
        try:
            for pair in pairs:
                yield {"note": " · ".join(f"{run.name}: {run.line}" for run in pair)}
        finally:
            stop.set()
            pairs.close()
    data = view(pair)
    if data is None:
        return
    for side in data["sides"]:
        for medium in side["media"]:
            medium["source"] = item.name
    times_s = data["sides"][0]["media"][0]["times_s"]
    facts = {"media": [{"key": item.key, "times_s": times_s}]}
    known = TabFile(
        controller.uploads.keep("compare.json", _json(data)), (visitor.model_number, item), facts
    )
    visitor.keep_tab_file("compare", known)
    yield _value(known)


# files to save

_PICTURED = {
    "png": lambda media, film, clip: pictures.png(film[0]),
    "gif": lambda media, film, clip: pictures.gif(film, clip.times_s),
    "mp4": lambda media, film, clip: media.film(film, clip.times_s),
}


def save(controller: Controller, visitor: Session, detail: Mapping) -> dict:
    """A file of the shown pruning to save: what the model's pruner leaves under these settings.

    detail: kind ("png", one frame; "gif", "mp4", the clip; "npz", the mask), threshold, mode, keep
            and frame, as a browser says them
    """
    item, kind, frame = visitor.current, detail.get("kind"), detail.get("frame")
    rule = controller.rule(form.rule(detail))
    if item is None:
        raise UserError("Nothing to save", text_format.NO_VIDEO)
    if kind not in (*_PICTURED, "npz"):
        raise UserError("Nothing to save", "Choose PNG, GIF, MP4 or the mask.")
    video = _open(visitor, item)
    clip, grid, keep = video.clip, video.grid, _keep(video, rule)
    if kind == "npz":
        content = pictures.mask_npz(grid, keep, clip.times_s)
    else:
        film = pictures.film(clip, grid, keep)
        if kind == "png":
            if type(frame) is not int or not 0 <= frame < len(clip):
                raise UserError("Nothing to save", f"The frames are 0 to {len(clip) - 1}.")
            film = film[frame : frame + 1]
        content = _PICTURED[kind](controller.uploads, film, clip)
    return _download(controller, visitor, f"{Path(item.name).stem} pruning.{kind}", content)


def page(controller: Controller, visitor: Session, rule: dict | None) -> dict:
    """The views opened of the current video and the last answer, as one HTML file to save."""
    current = [
        (name, visitor.tab_files[name])
        for name in TABS
        if name in visitor.tab_files and visitor.tab_files[name].made_of == _made_of(visitor, name)
    ]
    if not current:
        raise UserError("Nothing to save", "Open one of the tabs first.")
    views = [_read(known) for _, known in current]
    for shown in views:
        if shown["view"] == "pruning":
            shown["used"] = rule
        if shown["view"] == "attention":
            shown["details"] = [_read(each) for each in _maps(visitor)]
    title = visitor.current.name if visitor.current else "Answer"
    content = export.page(*views, title=title, facts=_facts(visitor)).encode()
    return _download(controller, visitor, f"{Path(title).stem} inside.html", content)


def _facts(visitor: Session) -> list[str]:
    """Which model the views are of, and what could not be read exactly."""
    plan, number = visitor.current and visitor.current.plan, _answered(visitor)
    notes = [*(plan.notes if plan else ())]
    notes += visitor.turns[number].reply.notes if number is not None else ()
    return [text_format.model(visitor.studio.card), *dict.fromkeys(notes)]


def _read(known: TabFile) -> dict:
    return json.loads(Path(known.path).read_text("utf-8"))


def _download(controller: Controller, visitor: Session, name: str, content: bytes) -> dict:
    path = controller.uploads.keep(name, content)
    visitor.keep_tab_file("saved", TabFile(path, ()))
    return {"url": file_url(path), "name": name}
