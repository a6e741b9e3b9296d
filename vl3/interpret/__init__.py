"""Looks inside from outside: where each word of a finished answer looked. No model file knows it.

Nothing is captured while the model answers, so an answer is the same with and without a look. For a
look the finished reply is replayed: one forward pass over prompt and answer, features from the
studio's memory, no key/value cache touched, ended after the deepest layer asked for.
Queries and keys of the asked layers stay (`record`), a bounded memory holds those of the last
replies (`tracer`), and softmax rows are computed from them in float32 for the asked words and heads
alone (`rows`). The model runs with SDPA throughout; no L x L matrix exists but in `relevancy`.

Replay and not live capture, measured with nano on one core, 16 frames, 2 465 positions, a short
answer of 0.50 s: the replay takes 0.28 s for all layers, 0.03 s for the first, once; a map after
that 1 ms. It holds 3.9 MB, where eager attention would hold 389 MB. Live capture of all layers
adds 0.05 s and 11 MB to every answer, looked into or not, must know the layers before the
question, and misses the queries of whatever the key/value cache had ready. What a replay costs:
one prefill, and in 16-bit its numbers may differ from the answer's own in the last bits.

Attention shows where information was read, not why the answer was given.
"""

from vl3.interpret.attention_rows import sinks
from vl3.interpret.replay_input import Attention, ReplayInput
from vl3.interpret.tracer import SOURCES, Tracer

__all__ = ["SOURCES", "Attention", "ReplayInput", "Tracer", "sinks"]
