"""Jobs for a process that decodes, which imports this file to do them."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np

from vl3.video.job import Picture


def process(link):
    yield os.getpid()


def modules(link):
    yield sorted({name.partition(".")[0] for name in sys.modules})


def crash(link):
    yield "first"
    ctypes.string_at(0)


def fail(link):
    raise LookupError("a mistake in the code")
    yield


def hang(link):
    yield os.getpid()
    time.sleep(60)


def go_on(link):
    yield os.getpid()
    while True:
        link.beat()
        time.sleep(0.01)


def eat(num_bytes, link):
    """Takes memory that is written to; says how much of it could be had."""
    taken = []
    for _ in range(num_bytes >> 24):
        taken.append(np.ones(1 << 24, np.uint8))
        link.beat()
    yield len(taken) << 24


def pictures(count, height, width, link):
    """Pictures whose values are their numbers."""
    for number in range(count):
        yield Picture(np.full((height, width, 3), number % 256, np.uint8), (height, width), number)


def ask(link):
    yield [link.ask(number) for number in range(3)]
