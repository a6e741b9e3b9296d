"""What a decoder is given to do, and what it gives back: values that can go to another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Link:
    """What a job reaches of whoever asked for it.

    beat: says that the work goes on; raises where nobody listens any more
    ask: a question that only the caller can answer, its arguments and its answer plain values
    """

    beat: Beat
    ask: Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture on its way to the caller, who has it until the next value is asked for.

    shown_px: height and width as it is shown, with square pixels
    wanted, index: of a video's frames, as of vl3.video.decode.DecodedFrame
    Shapes: pixels_YX3 - uint8 RGB, upright, any strides
    """

    pixels_YX3: np.ndarray
    shown_px: tuple[int, int]
    wanted: int = 0
    index: int = 0


# A generator function of a module with all but its last argument given (functools.partial).
Job = Callable[[Link], Iterator[Any]]
