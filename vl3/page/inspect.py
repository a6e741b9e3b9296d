"""The tabs of Inspect: what each of them draws, made when it is looked at, and files of it.

What a tab draws is too large for a value of the page. It is a JSON file that the tab fetches, under
a name that nobody guesses, kept until there is another one or the visitor leaves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vl3.page import settings, words
from vl3.page.conversation import Attachment, reply_about
from vl3.page.desk import Desk
from vl3.page.media import file_url
from vl3.page.refused import Refused
from vl3.page.visitors import Look, Visitor
from vl3.values import Keep, Patches, Reply, Seen
from vl3.vision import patchify
from vl3.vision.prune import keep_all, prune
from vl3.viz import export, pictures, positions, pruning

TABS = ("pruning", "positions", "run")


def opened(visitor: Visitor, name: object) -> None:
    """Notes which tab the visitor has open, from now on."""
    if name not in TABS:
        raise Refused("Nothing to open", "There is no tab of that name. Reload the page.")
    visitor.tab = str(name)


def look(desk: Desk, visitor: Visitor, rule: dict | None) -> Iterator[dict]:
    """What the open tab shows, as it comes to be; nothing for a tab that draws no file.

    rule: all settings of the pruner for the next answer, None for off
    """
    name, item = visitor.tab, visitor.current
    if name not in _MAKERS:
        return
    if item is None:
        yield {"note": words.NO_VIDEO}
        return
    found = reply_about(visitor.turns, item)
    made_of = (visitor.model_number, item, found if name == "positions" else None)
    known = visitor.looks.get(name)
    try:
        if known is None or known.made_of != made_of:
            yield {"note": words.WAITING if visitor.is_busy else words.LOOKING}
            data = _MAKERS[name](visitor, item, found)
            path = desk.media.keep(f"{name}.json", json.dumps(data, allow_nan=False).encode())
            visitor.keep(name, Look(path, made_of))
        if name == "pruning":
            visitor.foreseen = (item, rule, _seen(visitor, item, rule))
    except (ValueError, *desk.refusals) as error:
        yield {"note": str(error)}
        return
    known = visitor.looks.get(name)
    if known is not None:  # the visitor may have left meanwhile
        yield {"url": file_url(known.path), "key": item.key, "used": rule}


def _open(visitor: Visitor, item: Attachment) -> Any:
    """The video as the model will see it; the studio keeps it for the answer."""
    return visitor.studio.open(
        item.path, fps=item.fps, max_frames=item.max_frames, start=item.start_s, end=item.end_s,
        budget_tokens=item.budget_tokens,
    )  # fmt: skip


def _pruning(visitor: Visitor, item: Attachment, found: tuple[Reply, int] | None) -> dict:
    video = _open(visitor, item)
    return pruning.data(replace(video.clip, source=item.name), video.grid, None)


def _positions(visitor: Visitor, item: Attachment, found: tuple[Reply, int] | None) -> dict:
    video, config = _open(visitor, item), visitor.studio.model.config
    prompt = {}
    if found is not None and found[0].prompt_ids:
        reply, place = found
        seen = reply.seen[place]
        is_slot_L = np.isin(reply.prompt_ids, config.slot_token_ids)
        prompt = {
            "spans": spans(is_slot_L, [one.kept_per_frame for one in reply.seen])[place],
            "keep_M": np.unpackbits(
                np.frombuffer(seen.keep_bits, np.uint8), count=seen.num_tokens
            ).astype(bool),
        }
    vision = config.vision_config
    return positions.data(
        video.grid, vision.head_channels, vision.rope_theta, times_s=video.clip.times_s,
        source=item.name, **prompt,
    )  # fmt: skip


_MAKERS: Mapping[str, Callable[..., dict]] = {"pruning": _pruning, "positions": _positions}


def spans(is_slot_L: np.ndarray, kept: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Of each clip of a prompt, the first position and the number of slots of every frame.

    kept: for each clip, the kept tokens of every frame
    Shapes: is_slot_L - bool over the prompt, True at visual slots
    """
    position_K = np.append(np.flatnonzero(is_slot_L), len(is_slot_L))
    clips, before = [], 0
    for counts in kept:
        frames = []
        for count in counts:
            frames.append((int(position_K[before]), count))
            before += count
        clips.append(frames)
    return clips


def _patches(video: Any) -> Patches:
    pixels_NP = patchify(video.clip.frames_TYX3, video.grid)
    return Patches(pixels_NP=pixels_NP, grids=(video.grid,))


def _keep(video: Any, rule: Mapping | None) -> Keep:
    """The pruner's own mask of a video under these settings."""
    return keep_all((video.grid,)) if rule is None else prune(_patches(video), **rule)


def _seen(visitor: Visitor, item: Attachment, rule: Mapping | None) -> Seen:
    """What the pruner will leave of a video."""
    video = _open(visitor, item)
    (kept,) = _keep(video, rule).kept_per_frame
    return Seen(
        times_s=video.clip.times_s,
        tokens_per_frame=video.grid.tokens_per_frame,
        kept_per_frame=tuple(kept),
    )


# files

PRUNED = {
    "png": lambda media, film, clip: pictures.png(film[0]),
    "gif": lambda media, film, clip: pictures.gif(film, clip.times_s),
    "mp4": lambda media, film, clip: media.film(film, clip.times_s),
}


def save(desk: Desk, visitor: Visitor, detail: Mapping) -> dict:
    """A file of the shown pruning to save: what the model's pruner leaves under these settings.

    detail: kind ("png", one frame; "gif", "mp4", the clip; "npz", the mask), threshold, mode, keep
            and frame, as a browser says them
    """
    item, kind, frame = visitor.current, detail.get("kind"), detail.get("frame")
    rule = desk.rule(settings.rule(detail))
    if item is None:
        raise Refused("Nothing to save", words.NO_VIDEO)
    if kind not in (*PRUNED, "npz"):
        raise Refused("Nothing to save", "Choose PNG, GIF, MP4 or the mask.")
    video = _open(visitor, item)
    keep = _keep(video, rule)
    clip, grid = video.clip, video.grid
    if kind == "npz":
        content = pictures.mask_npz(grid, keep, clip.times_s)
    else:
        film = pictures.film(clip, grid, keep)
        if kind == "png":
            if type(frame) is not int or not 0 <= frame < len(clip):
                raise Refused("Nothing to save", f"The frames are 0 to {len(clip) - 1}.")
            film = film[frame : frame + 1]
        content = PRUNED[kind](desk.media, film, clip)
    return _download(desk, visitor, f"{Path(item.name).stem} pruning.{kind}", content)


def page(desk: Desk, visitor: Visitor, rule: dict | None) -> dict:
    """The views opened of the current video, as one HTML file to save."""
    looks = [(name, visitor.looks[name]) for name in TABS if name in visitor.looks]
    current = [(name, look) for name, look in looks if look.made_of[1] == visitor.current]
    if not current:
        raise Refused("Nothing to save", "Open one of the tabs first.")
    views = [json.loads(Path(look.path).read_text("utf-8")) for _, look in current]
    views = [view | {"used": rule} if view["view"] == "pruning" else view for view in views]
    title = visitor.current.name
    content = export.page(*views, title=title).encode()
    return _download(desk, visitor, f"{Path(title).stem} inside.html", content)


def _download(desk: Desk, visitor: Visitor, name: str, content: bytes) -> dict:
    path = desk.media.keep(name, content)
    visitor.keep("saved", Look(path, ()))
    return {"url": file_url(path), "name": name}
