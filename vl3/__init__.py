"""VideoLLaMA 3, opened up: chat with videos, look inside, fine-tune.

Names of tensors end in their dimensions:

    T frames          Y, X pixel rows, columns      P values in one flattened patch
    N patches, packed over frames and clips         M merged visual tokens (N / merge^2)
    K kept tokens after DiffFP (K <= M)             R rotation angles (channels / 2)
    B batch           L positions in the prompt     V vocabulary
    D vision width    E language width              H heads             C channels per head
    I layers          Q positions that look (queries)
    S samples of sound                A frames of a filter bank, Z its mel bins

Nothing heavy is imported until it is used.
"""

import logging
from importlib import import_module

from vl3.hf.auto_classes import follow_transformers

# When peft imports it, bitsandbytes warns that it found no kernels of the Hugging Face hub, which
# vl3 never asks for; and at every layer of every step that int8 works in float16 inside.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_HOMES = {
    "load": "vl3.studio",
    "Studio": "vl3.studio",
    "VL3Config": "vl3.config",
    "VL3ForConditionalGeneration": "vl3.model",
    "VL3Processor": "vl3.processor",
    "video": None,
    "vision": None,
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'vl3' has no attribute {name!r}")
    home = _HOMES[name]
    return import_module(f"vl3.{name}") if home is None else getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)


follow_transformers()
