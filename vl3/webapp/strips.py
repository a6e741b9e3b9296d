"""What stands below the player: the film strip of the current video, and the strip of its sound."""

from __future__ import annotations

from dataclasses import replace

from vl3.webapp import film_strip
from vl3.webapp.sessions import Session
from vl3.webapp.uploads import Uploads


def make(visitor: Session, uploads: Uploads, hears: bool) -> None:
    """Makes the strips of the current video, unless they are there or there is nothing to show.

    hears: whether the model does; what it does not is not shown
    """
    _make_film_strip(visitor, uploads)
    item = visitor.current
    if item is None or item.plan is None or item.kind == "image" or item.sound or not hears:
        return
    strip = uploads.sound_strip(item)
    if visitor.current and visitor.current.key == item.key:
        visitor.current = replace(visitor.current, sound=strip)


def _make_film_strip(visitor: Session, uploads: Uploads) -> None:
    item = visitor.current
    if item is None or item.plan is None or item.plan.times_s is None:
        return
    if item.strip and item.strip.spans == film_strip.spans(item.plan.times_s):
        return
    strip = uploads.film_strip(item)
    # Fields may have changed meanwhile; another file has pictures of its own.
    if visitor.current and visitor.current.key == item.key:
        visitor.current = replace(visitor.current, strip=strip)
