"""Samples held against the rules before anything is trained: nothing is decoded, headers suffice.

`walk` gives what is known of each sample; vl3.data.report counts it. The rules and their
sentences are in vl3.data.rules.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vl3 import video
from vl3.data import rules
from vl3.data.normalize import question, sources
from vl3.data.readers import Records
from vl3.data.records import BadSample, Record
from vl3.data.rules import Note
from vl3.families.settings import ProcessorSettings
from vl3.messages.media import MediaInfo, MediaPart, find_media
from vl3.pipeline import AnyPart, Planned, fit, prepare, read_medium
from vl3.processor import VL3Processor
from vl3.prompt import Prompt
from vl3.values import Clip, Grid
from vl3.video import VideoError

VISUAL_TOKENS, MAX_TOKENS = 10240, 16384  # as vl3.training.recipe has them
MOST_ELONGATED = 200
SLACK_S = 1.0  # ends of clips and times in answers are often rounded up
NO_BUDGET = 1 << 40

NUMBER = r"(\d+(?:\.\d+)?)"
SECONDS = r"\s*(?:s|sec|secs|seconds?)\b"
SPAN = re.compile(rf"{NUMBER}(?:{SECONDS})?\s*(?:-|–|to|and|until)\s*{NUMBER}{SECONDS}")
MOMENT = re.compile(rf"\b(?:at|after|until|from)\s+{NUMBER}{SECONDS}")
BOX = re.compile(r"\[\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*\]")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Tokens and media of a sample; visual before pruning."""

    text: int = 0
    visual: int = 0
    images: int = 0
    videos: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.text + self.visual


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of one sample; error is set where it cannot be learned from."""

    index: int
    place: str
    dataset: str
    record: Record | None = None
    size: Size | None = None
    notes: tuple[Note, ...] = ()
    error: BadSample | None = None


# Rules about one medium


def check_medium(medium: MediaPart, settings: ProcessorSettings, notes: list[Note]) -> MediaInfo:
    """The size of a medium from its header, once it has been held against the rules.

    Raises: BadSample E121, E122, E123.
    """
    try:
        measured = medium.measure(settings)
        if not isinstance(medium.source, Clip) and medium.kind == "video":
            check_range(medium.options, measured)
            notes += check_frames(medium, measured, settings)
    except VideoError as error:
        raise _unreadable(medium, error) from None
    notes += as_read(medium, measured.notes)
    check_shape(medium.kind, measured, settings.patch * settings.merge_of(medium.kind))
    return measured


def check_hearing(media: Sequence[AnyPart], settings: ProcessorSettings) -> None:
    """Raises: BadSample E121 for sound where the model has no ear."""
    for medium in media:
        if medium.kind == "audio" and settings.sound is None:
            raise rules.no_sound(str(getattr(medium.source, "source", medium.source)))


def check_shape(kind: str, measured: MediaInfo, least_px: int) -> None:
    """Raises: BadSample E122 for a side shorter than a token or a very long picture."""
    sides = sorted((measured.height_px, measured.width_px))
    if sides[0] < least_px or sides[1] > MOST_ELONGATED * sides[0]:
        raise rules.too_thin(kind, measured.width_px, measured.height_px, least_px)


def check_range(options: dict, measured: MediaInfo) -> None:
    """Raises: BadSample E123 for an end after the video's."""
    start, end, lasts = options.get("start") or 0.0, options.get("end"), measured.duration_s
    if lasts is not None and end is not None and end > lasts + SLACK_S:
        raise rules.out_of_range(start, end, lasts)


def check_frames(
    medium: MediaPart, measured: MediaInfo, settings: ProcessorSettings
) -> Iterator[Note]:
    """W124 where a video has more frames at its rate than may be taken."""
    if measured.duration_s is None:
        return
    if settings.spread or "num_frames" in medium.options:  # a number, and no rate
        return
    asked = medium.sampling(settings)
    end = min(asked.get("end") or measured.duration_s, measured.duration_s)
    seconds = end - (asked.get("start") or 0.0)
    frames = round(seconds * asked["fps"])
    if asked["max_frames"] is not None and frames > asked["max_frames"]:
        yield rules.many_frames(seconds, asked["fps"], frames, asked["max_frames"])


def as_read(medium: MediaPart, sentences: Iterable[str]) -> list[Note]:
    """W125 for what could not be read exactly."""
    source = medium.source
    name = Path(source).name if isinstance(source, str | Path) else getattr(source, "source", "")
    return [rules.as_read(name or "a picture", sentence) for sentence in sentences]


def _unreadable(medium: MediaPart, error: VideoError) -> BadSample:
    """E123 where the range is at fault, E121 where the file is."""
    start, end = medium.options.get("start"), medium.options.get("end")
    if start is not None:
        try:
            lasts = video.schedule(medium.source).duration_s
        except VideoError:
            lasts = None
        if lasts is not None and start >= lasts:
            return rules.empty_range(start, lasts if end is None else end, lasts)
    return rules.undecodable(str(medium.source), str(error))


# Rules about a whole sample


def check_answers(record: Record, sizes: list[MediaInfo]) -> Iterator[Note]:
    """W160 for times after the end of the only video, and boxes outside 0-1000."""
    lengths = [size.duration_s for size in sizes if size.duration_s is not None]
    lasts = lengths[0] if len(lengths) == len(sizes) == 1 else None
    answers = [
        turn["content"]
        for conversation in record.conversations
        for turn in conversation
        if turn["role"] == "assistant"
    ]
    for text in answers:
        if lasts is not None:
            yield from _times_beyond(text, lasts)
        if sizes:
            for box in BOX.finditer(text):
                if any(not 0 <= int(side) <= 1000 for side in box.groups()):
                    yield rules.box_beyond(box[0])


def _times_beyond(text: str, lasts: float) -> Iterator[Note]:
    for span in SPAN.finditer(text):
        if float(span[2]) > lasts + SLACK_S:
            yield rules.time_beyond("end time", float(span[2]), lasts)
    for moment in MOMENT.finditer(SPAN.sub("", text)):
        if float(moment[1]) > lasts + SLACK_S:
            yield rules.time_beyond("time", float(moment[1]), lasts)


class Seen:
    """The samples seen so far of one data set, to tell duplicates."""

    def __init__(self) -> None:
        self.first: dict[bytes, str] = {}

    def add(self, record: Record, place: str) -> Note | None:
        """W150 where the same media, or the same id, came before with the same first question."""
        media = sources(record)
        asked = [media, question(record)]
        keys = [["asked", *asked]] if media else []
        if record.id != place:
            keys.append(["id", record.id, *asked])
        firsts = [self.first.setdefault(_digest(key), place) for key in keys]
        of = next((first for first in firsts if first != place), None)
        return None if of is None else rules.duplicate(_number(of))


def _digest(key: list) -> bytes:
    return hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()


def _number(place: str) -> str:
    name, _, number = place.rpartition(":")
    return f"line {number}" if number.isdigit() and name.endswith(".jsonl") else place


def check_length(
    record: Record,
    processor: VL3Processor,
    settings: ProcessorSettings,
    max_tokens: int,
    notes: list[Note],
) -> tuple[Size, list[MediaInfo]]:
    """The tokens of a sample, before pruning, and what its media measure.

    Raises: BadSample E130, as the rules of its media.
    """
    media = _found(record)
    check_hearing(media, settings)
    pictures = [medium for medium in media if isinstance(medium, MediaPart)]
    sizes = [check_medium(medium, settings, notes) for medium in pictures]
    planned = fit(media, sizes, settings)
    visual = planned.num_tokens
    wanted = fit(media, sizes, replace(settings, budget_tokens=NO_BUDGET)).num_tokens
    if wanted > visual:
        notes.append(rules.reduced(wanted, visual))
    slots = planned.slots
    prompts = [processor.render(each, slots) for each in record.conversations]
    tokens = count_tokens(prompts)
    size = Size(
        text=tokens - visual,
        visual=visual,
        images=sum(medium.kind == "image" for medium in media),
        videos=sum(medium.kind == "video" for medium in media),
        seconds=sum(size.duration_s or 0.0 for size in sizes),
    )
    if tokens > max_tokens:
        # the pruner may save the sample; only then are frames worth decoding
        kept = _kept(planned, notes) if media and settings.prune else visual
        if tokens - visual + kept > max_tokens:
            raise rules.too_long(tokens - visual + kept, kept, max_tokens)
    return size, sizes


def _found(record: Record) -> list[AnyPart]:
    """The media of a record. Raises: BadSample E121, E102."""
    try:
        return find_media(record.conversations[0])
    except VideoError as error:
        paths = sources(record)
        raise rules.undecodable(paths[0] if len(paths) == 1 else "a medium", str(error)) from None
    except ValueError as error:
        raise rules.refused("", error) from None


def count_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens of a sample's prompts, what stands before the end of their media counted once."""
    if len(prompts) == 1:
        return len(prompts[0].ids)
    shared = prompts[0].media_end
    return shared + sum(len(prompt.ids) - shared for prompt in prompts)


def _kept(planned: Planned, notes: list[Note]) -> int:
    """Visual tokens that pruning leaves; notes gets what decoding tells of the media."""

    def read(medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
        try:
            clip = read_medium(medium, settings, grid)
        except VideoError as error:
            raise rules.undecodable(str(medium.source), str(error)) from None
        notes.extend(as_read(medium, clip.notes))
        return clip

    return prepare(planned, read).num_tokens


# A data set


def walk(
    records: Records,
    processor: VL3Processor,
    *,
    indices: Iterable[int] | None = None,
    visual_tokens: int = VISUAL_TOKENS,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[Outcome]:
    """What is known of each sample, one after the other; bad samples do not stop it."""
    settings = replace(processor.settings, budget_tokens=visual_tokens)
    seen = Seen()
    for index in range(len(records)) if indices is None else indices:
        place, record = records.place(index), None
        notes: list[Note] = []
        dataset, size = records.name, None
        try:
            record, mended = records.read(index)
            dataset = record.dataset
            size, sizes = check_length(record, processor, settings, max_tokens, notes)
            notes += check_answers(record, sizes)
            if (double := seen.add(record, place)) is not None:
                notes.append(double)
            error = None
        except BadSample as bad:
            read = record is not None  # the reader has put the place in front itself
            error = BadSample(bad.code, f"{place}: {bad}") if read else bad
            mended = mended if read else []
        placed = [Note(note.code, f"{place}: {note.message}") for note in dict.fromkeys(notes)]
        yield Outcome(
            index=index,
            place=place,
            dataset=dataset,
            record=record,
            size=size,
            notes=(*mended, *placed),
            error=error,
        )
