"""How a run ends early: a signal to any of its processes, heeded by all of them together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import torch

# Ctrl-C, what torchrun and schedulers send at the end, and what schedulers send before it.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


class Stopped(Exception):
    """The processes of a run agreed to end before the pass that would come next."""


class Stop:
    """Signals that ask for the end of a run; a context, in the main thread, while they count.

    signal: the one that ended the run, of whichever process got it; 0 while none did
    """

    def __init__(self) -> None:
        self.signal = self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame) -> None:
        self.asked = number

    def agree(self, largest: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Ends the run here where any process was asked to end it.

        largest: the largest value of a tensor over all processes, which all call this together
        Raises: Stopped, in every process or in none.
        """
        self.signal = int(largest(torch.tensor(self.asked)).item())
        if self.signal:
            raise Stopped
