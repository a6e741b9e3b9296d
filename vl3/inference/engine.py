"""A loaded model and whose turn it is to compute with it.

Several answers are made at once, each by the thread that reads it, and one of them computes at a
time: a turn is a piece of a clip, a piece of a prompt, or one token. Turns come in the order in
which they are asked for, so a long answer does not keep a short one waiting, and no turn is held
while the caller decides whether to read on. An answer that is not read on holds up no other.
"""

from __future__ import annotations

import ctypes
import gc
import platform
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import cast

import torch
from torch import nn

from vl3.language.layers import decoder_layers
from vl3.weights.load import Loaded

LOOK_S = 0.05  # how often whoever waits looks whether it is to stop


class Stopped(Exception):
    """The answer was stopped; the model is free again."""


def never() -> bool:
    """For work that cannot be stopped."""
    return False


def give_back_memory() -> None:
    """Hands memory that nothing refers to any more back to the device and the system.

    Looks at every object there is: for the rare moments when that is worth it. glibc keeps what
    threads have freed: after 30 people had left nano's page, 310 of 1026 MB.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class Engine:
    """A loaded model, its processor, and the line of those who compute with it.

    loaded: checkpoint; its model must not be used outside of a turn while others have turns
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.processor = loaded.processor
        self._line: deque[Turn] = deque()  # the first one computes
        self._at_work: Turn | None = None
        self._moved = Condition()

    @property
    def is_busy(self) -> bool:
        """Whether any thread computes or waits for a turn."""
        return bool(self._line)

    @contextmanager
    def turn(self, stopped: Callable[[], bool] = never) -> Iterator[Turn]:
        """A turn with the model, at the end of the line.

        stopped: looked at while waiting, and before every layer of a pass through the model
        Raises: Stopped, there and then.
        """
        turn, hooks = Turn(self, stopped), []
        try:  # from the first: Ctrl-C, at any moment, must not leave the turn in the line
            turn._enter()
            ear = self.model.ear.layers if self.model.ear is not None else ()
            for layer in (*self.model.vision.blocks, *ear, *decoder_layers(self.model.language)):
                hooks.append(layer.register_forward_pre_hook(turn._check))
            yield turn
        finally:
            for hook in hooks:
                hook.remove()
            turn._leave()

    @contextmanager
    def offloaded(self) -> Iterator[None]:
        """Within it the weights wait in the computer's memory, and nothing is computed with them.

        So another model can have the GPU. Quantised weights stay where they are, and so do those
        of a model that runs on the CPU: with these others go on computing.
        """
        device = self.model.device
        if device.type == "cpu" or self.loaded.quantized is not None:
            yield
            return
        with self.turn():
            try:
                cast(nn.Module, self.model).to("cpu")
                give_back_memory()
                yield
            finally:
                give_back_memory()
                cast(nn.Module, self.model).to(device)


class Turn:
    """One place in the line of an engine."""

    def __init__(self, engine: Engine, stopped: Callable[[], bool]) -> None:
        self._engine, self._stopped = engine, stopped

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Lets the others go first, and a caller's own code run, before this turn goes on."""
        self._leave()
        yield
        self._enter()

    def _enter(self) -> None:
        line, moved = self._engine._line, self._engine._moved
        with moved:
            line.append(self)
            while line[0] is not self and not self._stopped():
                moved.wait(None if self._stopped is never else LOOK_S)
            if self._stopped():
                self._leave()
                raise Stopped
            self._engine._at_work = self

    def _leave(self) -> None:
        engine = self._engine
        with engine._moved:
            if self in engine._line:
                engine._line.remove(self)
                engine._moved.notify_all()
            if engine._at_work is self:
                engine._at_work = None

    def _check(self, *_) -> None:
        # Other turns run while this one is paused.
        if self._engine._at_work is self and self._stopped():
            raise Stopped
