"""One question answered twice, under two settings, without a word of it in the conversation."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, cast

from vl3.inference.registry import Registry
from vl3.values import Ledger, Reply
from vl3.viz import compare
from vl3.viz.compare import Side
from vl3.webapp.conversation import Turn, follow, messages

LOADING = "Loading the model"
LOAD = "load"  # the entry of a run's settings that names another model
_NAMES = {"model": "model", "quantize": "quantization", "adapter": "adapter"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One of the two runs as it stands. side: what is compared, once it has come to an end."""

    name: str
    turn: Turn
    side: Side | None = None

    @property
    def line(self) -> str:
        """How far it is, in a few words; what went wrong where something did."""
        if self.turn.problem or self.turn.stage:
            return self.turn.problem or self.turn.stage
        running = "Answering" if self.turn.answer else "Waiting"
        return {"working": running, "stopped": "Stopped"}.get(self.turn.status, "Done")


def run_both(
    studio: Any,
    turn: Turn,
    first: Mapping,
    second: Mapping,
    stop: Event,
    *,
    models: Registry | None = None,
    refusals: Sequence[type[Exception]] = (ValueError,),
    system: str = "",
) -> Generator[tuple[Run, Run]]:
    """Both runs as they grow, a new pair at every change; the last pair is the result, for `view`.

    studio: the visitor's; what it has encoded is used and kept, its conversation is not touched
    turn: the question with its attachments, asked without earlier turns
    first, second: settings as Studio.stream takes them. With "load", a dict of model, quantize and
                   adapter, a run has a model of its own. Where it does not fit beside those in
                   memory it is loaded while the page's weights wait elsewhere, and gone before they
                   come back, so that no two models need fit at once.
    stop: ends the run that is at work and with it the comparison; so does closing the iterator
    models: None where visitors may not load models
    refusals: errors that end a run with a sentence (Run.turn.problem); the other run goes on
    """
    runs = [Run(name=name, turn=turn) for name in names(first, second)]
    for number, settings in enumerate((first, second)):
        for run in _run(studio, runs[number], settings, stop, models, system, refusals):
            runs[number] = run
            yield runs[0], runs[1]


def view(runs: Sequence[Run], frame: int = 0) -> dict | None:
    """The data of the compare view; None unless both runs have an answer, if only a part of it."""
    first, second = runs
    if any(run.side is None or not (run.turn.answer or run.turn.status == "done") for run in runs):
        return None
    return compare.data(cast(Side, first.side), cast(Side, second.side), first.turn.question, frame)


def names(first: Mapping, second: Mapping) -> tuple[str, str]:
    """What sets two runs apart, in words: Pruning off; Pruning at 2, rlt · temperature 0.7."""
    differing = [
        key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)
    ]
    if not differing:
        return "First run", "Second run"
    one, other = (
        _capital(" · ".join(_words(key, settings.get(key)) for key in differing))
        for settings in (first, second)
    )
    return one, other


def _run(studio, run: Run, settings: Mapping, stop, models, system, refusals) -> Iterator[Run]:
    if stop.is_set():
        yield replace(run, turn=replace(run.turn, status="stopped"))
        return
    chosen = settings.get(LOAD)
    options = {key: value for key, value in settings.items() if key != LOAD}
    request = {
        "messages": messages((), run.turn, system),
        "budget_tokens": next((item.budget_tokens for item in run.turn.attachments), None),
        "stop": stop,
        **options,
    }
    if chosen is None:
        yield from _answered(studio.new_session(share_encoded=True), run, request, refusals)
        return
    if models is None:
        yield _failed(run, "The model is chosen by whoever started this page.")
        return
    yield replace(run, turn=replace(run.turn, stage=LOADING))
    has_room = models.has_room(**chosen)
    with nullcontext() if has_room else studio.engine.offloaded():
        other = None
        try:
            other = (models.session if has_room else models.load)(**chosen)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            problem = str(error).strip().splitlines()
            yield _failed(run, problem[0] if problem else "This model cannot be loaded.")
        else:
            yield from _answered(other, run, request, refusals)
        finally:
            if other is not None:
                other.release()
            del other


def _answered(studio, run: Run, request: Mapping, refusals: Sequence) -> Iterator[Run]:
    try:
        with closing(studio.stream(**request)) as stream:
            for turn in follow(stream, run.turn):
                run = replace(run, turn=turn)
                if turn.reply is None:
                    yield run
        if run.turn.reply is not None:
            yield replace(run, side=_side(studio, run))
    except tuple(refusals) as error:
        yield _failed(run, str(error))


def _side(studio, run: Run) -> Side:
    reply = cast(Reply, run.turn.reply)
    videos = studio.videos(reply)
    return Side(
        name=run.name,
        reply=replace(reply, ledger=alone(reply.ledger, videos)),
        clips=tuple(video.clip for video in videos),
        keeps=tuple(video.keep for video in videos),
    )


def alone(ledger: Ledger, videos: Sequence) -> Ledger:
    """The ledger as if nothing had been in memory: with what reading and encoding took when done.

    Of two runs over one video only the first encodes it; their times would not compare.
    """
    decode_s = sum(video.ledger.decode_s for video in videos)
    encode_s = sum(video.ledger.encode_s for video in videos)
    more_s = decode_s + encode_s - ledger.decode_s - ledger.encode_s
    return replace(
        ledger,
        decode_s=decode_s,
        encode_s=encode_s,
        first_token_s=ledger.first_token_s + more_s,
        total_s=ledger.total_s + more_s,
    )


def _failed(run: Run, problem: str) -> Run:
    return replace(run, turn=replace(run.turn, status="failed", stage="", problem=problem))


def _words(key: str, value: Any) -> str:
    if key == "prune":
        return _pruning(value)
    if key == LOAD:
        named = [f"{_NAMES[name]} {Path(str(of)).name}" for name, of in (value or {}).items() if of]
        return " · ".join(named) or "the model of this page"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{key.replace('_', ' ')} {shown}"


def _pruning(prune: object) -> str:
    if not isinstance(prune, Mapping):
        return "pruning off" if prune is None else "pruning as the model does"
    parts = [f"pruning at {prune['threshold']:g}" if "threshold" in prune else "pruning"]
    if "mode" in prune:
        parts.append(str(prune["mode"]).replace("_", " "))
    if prune.get("keep") == "later":
        parts.append("keep the later")
    return ", ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
