"""A studio whose timing a test decides: the contract of vl3.load(), answers without a model.

Reading and planning are real (containers are probed, frames counted); only the words are scripted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import vl3.video
from vl3.config import VL3VisionConfig
from vl3.processor import ProcessorSettings
from vl3.values import Grid, Ledger, Plan, Progress, PromptSegment, Reply, TokenGrid, VisualContext

CARD = {
    "name": "fake",
    "path": "fake",
    "parameters": 5_200_000,
    "dtype": "float32",
    "device": "cpu",
    "quantize": None,
    "adapter": None,
    "is_nano": True,
    "hears": False,
    "context_tokens": 16_384,
    "defaults": {"fps": 1.0, "max_frames": 64, "budget_tokens": 8192, "max_new_tokens": 128},
    "unpruned": "",
    "unrotated": "",
    "weights_bytes": 21_000_000,
    "note": "",
}


class FakeOutOfMemory(RuntimeError):
    """What the app is told to show as out of memory."""


@dataclass
class Script:
    """What every answer says and how long each step takes. Shared by all forks."""

    answer: str = "A red circle moves right. At 0:01 it turns blue, until Time 2.0s."
    at_once: int = 1
    word_s: float = 0.005
    stage_s: float = 0.0
    raises: Exception | None = None
    raises_after_words: int = 0
    plan_raises: Exception | None = None
    notes: tuple = ()
    log: list = field(default_factory=list)


class FakeStudio:
    def __init__(self, script: Script | None = None, name: str = "root", card: dict | None = None):
        self.script = script or Script()
        self.name = name
        self.card = card or CARD
        self.settings = ProcessorSettings()
        vision = VL3VisionConfig(hidden_size=64, num_attention_heads=4)
        self.model = SimpleNamespace(
            config=SimpleNamespace(vision_config=vision, slot_token_ids=(7,))
        )
        self.caches: set = set()
        self.released = 0
        self.running = threading.Event()

    def new_session(self, share_encoded: bool = False) -> FakeStudio:
        fork = FakeStudio(self.script, f"fork{len(self.script.log)}", self.card)
        self.script.log.append(("fork", fork))
        return fork

    @property
    def answers_at_once(self) -> int:
        return self.script.at_once

    def release(self) -> None:
        self.caches.clear()
        self.released += 1

    def plan(
        self, path, *, fps=None, max_frames=None, start=None, end=None, budget_tokens=None
    ) -> Plan:
        if self.script.plan_raises:
            raise self.script.plan_raises
        if Path(path).suffix in (".jpg", ".png"):
            grid = Grid(frames=1, rows=24, cols=36, merge=1)
            return Plan(
                source=str(path),
                times_s=None,
                height_px=336,
                width_px=504,
                grid=grid,
                duration_s=None,
                notes=self.script.notes,
            )
        probe = vl3.video.probe(path)
        schedule = vl3.video.schedule(path, fps or 1.0, max_frames or 64, start, end)
        grid = Grid(frames=len(schedule.times_s), rows=8, cols=12, merge=2)
        return Plan(
            source=str(path),
            times_s=tuple(schedule.times_s),
            height_px=112,
            width_px=168,
            grid=grid,
            duration_s=probe.duration_s,
            notes=self.script.notes,
        )

    def open(self, path, *, budget_tokens=None, **sampling):
        """The frames at the size of the plan; what was opened is written into the script's log."""
        plan = self.plan(path, **sampling)
        size = (plan.height_px, plan.width_px)
        if plan.times_s is None:
            clip = vl3.video.read_image(path, size=size)
        else:
            given = {key: value for key, value in sampling.items() if value is not None}
            clip = vl3.video.read(path, size=size, **{"fps": 1.0, "max_frames": 64, **given})
        self.script.log.append(("opened", self.name, path))
        return SimpleNamespace(clip=clip, grid=plan.grid, tokens=TokenGrid.of_cells(plan.grid))

    def pieces(self, reply: Reply) -> tuple[PromptSegment, ...]:
        return (PromptSegment(kind="text", text=reply.prompt, tokens=reply.ledger.prompt_tokens),)

    def videos(self, reply: Reply) -> tuple:
        return ()

    def attention(self, reply: Reply, **asked):
        raise ValueError("A script has no attention.")

    def stream(self, messages, *, stop=None, max_new_tokens=128, prune="model", **settings):
        stop = stop or threading.Event()
        self.running.set()
        try:
            yield from self._run(messages, stop, max_new_tokens, {"prune": prune, **settings})
        finally:
            self.running.clear()

    def reply(self, messages, **settings) -> Reply:
        return [event for event in self.stream(messages, **settings) if isinstance(event, Reply)][
            -1
        ]

    def _run(self, messages, stop, max_new_tokens, settings):
        begin_s = time.monotonic()
        media = [
            part.get("video") or part.get("image")
            for message in messages
            for part in (message["content"] if isinstance(message["content"], list) else [])
            if part["type"] != "text"
        ]
        items = [repr(medium) for medium in media]
        new = [item for item in items if item not in self.caches]
        yield from self._stages(new, stop)
        if not stop.is_set():
            self.caches.update(items)
        words = self.script.answer.split(" ")[:max_new_tokens]
        said, first_s = [], 0.0
        for number, word in enumerate(words):
            if self.script.raises and number >= self.script.raises_after_words:
                raise self.script.raises
            if _stopped(stop, self.script.word_s):
                break
            said.append(word if not said else f" {word}")
            first_s = first_s or time.monotonic() - begin_s
            yield said[-1]
        self.script.log.append(("answered", self.name, messages, settings))
        ledger = Ledger(
            frames=4 * len(items),
            visual_tokens=96 * len(items),
            kept_tokens=60 * len(items),
            prompt_tokens=120,
            new_tokens=len(said),
            first_token_s=first_s,
            total_s=time.monotonic() - begin_s,
            encoded_clips=len(new),
            reused_clips=len(items) - len(new),
            peak_memory_bytes=412_000_000,
        )
        yield Reply(
            text="".join(said),
            token_ids=tuple(range(len(said))),
            prompt="<prompt>",
            settings={"max_new_tokens": max_new_tokens, **settings, "prune": self._rule(settings)},
            ledger=ledger,
            stopped=stop.is_set(),
            notes=self.script.notes,
            seen=tuple(self._seen(medium) for medium in media),
        )

    def _rule(self, settings) -> dict | None:
        prune = settings["prune"]
        return asdict(self.settings.prune) if prune == "model" else prune

    def _seen(self, medium) -> VisualContext:
        """As if everything but the first frame were half removed."""
        plan = self.plan(**medium) if isinstance(medium, dict) else self.plan(medium)
        tokens = plan.grid.tokens_per_frame
        kept = (tokens, *[tokens // 2] * (plan.grid.frames - 1))
        return VisualContext(times_s=plan.times_s, tokens_per_step=tokens, kept_per_step=kept)

    def _stages(self, new, stop):
        for done in range(1, 5) if new else ():
            if _stopped(stop, self.script.stage_s):
                return
            yield Progress("Reading frames", done, 4)
        for name in ("Encoding video", "Removing repeated patches") if new else ():
            if _stopped(stop, self.script.stage_s):
                return
            yield Progress(name)
        if not new:
            yield Progress("Video already encoded, reused", kind="reused")
        yield Progress("Answering")


def _stopped(stop, seconds: float) -> bool:
    """Whether it is stopped within that time."""
    until_s = time.monotonic() + seconds
    while not stop.is_set():
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(left_s, 0.02))
    return True
