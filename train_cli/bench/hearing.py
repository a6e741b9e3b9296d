"""What the sound of a video adds to the time until an answer begins, from the file on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from train_cli.bench.clips import with_track
from train_cli.bench.measure import Row, beside
from train_cli.bench.models import Sizes, build
from vl3.audio.ear import ear_class
from vl3.config import WhisperEarConfig
from vl3.inference.engine import Engine
from vl3.settings import PruneSettings
from vl3.studio import Studio
from vl3.weights.ears import add_ear
from vl3.weights.load import Loaded

# Of VideoLLaMA3-2B with whisper-small, a part of each stack: 2 of 27, 2 of 28 and 1 of 12 layers.
# Decoding and filter banks stay whole, which makes sound dearer here than it is.
RELEASED = Sizes(vision_layers=2, text_width=1536, text_mlp=8960, text_heads=12, text_layers=2)
WHISPER_SMALL = {"d_model": 768, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072}
WHISPER_TINY = {"d_model": 48, "encoder_attention_heads": 4, "encoder_ffn_dim": 96}


@torch.no_grad()
def first_token(clips: Sequence[Path], folder: Path, rounds: int, sizes: Sizes = RELEASED):
    """A first question about each clip, with its sound and without; clips without get a track."""
    studio = _studio(sizes)
    rows: list[Row] = []
    for clip in clips:
        heard = with_track(clip, folder)
        studio.plan(str(heard))  # the page knows a file's length before anything is asked
        rows += beside(
            f"first token, {clip.stem}, with sound",
            lambda heard=heard: _ask(studio, heard, True),
            {"without": lambda heard=heard: _ask(studio, heard, False)},
            rounds,
            _more_tokens,
        )
    return rows


def _studio(sizes: Sizes) -> Studio:
    model, processor = build(sizes)
    is_small = sizes.vision_width < RELEASED.vision_width
    widths = WHISPER_TINY if is_small else WHISPER_SMALL
    config = WhisperEarConfig(encoder_layers=1, decoder_layers=0, num_mel_bins=80, **widths)
    processor = add_ear(model, processor, ear_class(config)(config))
    processor.settings = replace(processor.settings, prune=PruneSettings())
    model.eval()
    made = Loaded(model, processor, name="random", folder=Path(), adapter=None, quantized=None)
    return Studio(Engine(made))


def _ask(studio: Studio, clip: Path, heard: bool) -> int:
    """Tokens of a question's prompt, answered with one token from empty caches."""
    studio.release()
    parts = [{"type": "video", "video": str(clip)}, {"type": "text", "text": "What happens?"}]
    messages = [{"role": "user", "content": parts}]
    reply = studio.reply(messages, sound=None if heard else False, max_new_tokens=1)
    return reply.ledger.prompt_tokens


def _more_tokens(with_sound: int, without: int) -> str:
    return f"{with_sound} tokens, {without} without"
