"""Trains nano's tokenizer: byte-level BPE on the toy world's own text, in Qwen2's format.

Qwen2's rules for splitting text (digits stand alone) and Qwen2.5's added tokens in their order,
then the three of VideoLLaMA 3. Every byte has an entry, so any text can be encoded. A nano that is
to hear gets words for what it hears.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import processors as post_processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Tokenizer

from vl3.toyworld.questions import FAMILIES, ask
from vl3.toyworld.sounds import KINDS, LOUDNESSES, PITCHES, VOICE
from vl3.toyworld.world import Level, sample_scene

# The split of Qwen2's tokenizer, with every digit on its own.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
VISUAL = ("<image>", "<|stream_start|>", "<|stream_end|>")
CONTEXT_TOKENS = 8192
# What questions about sound say most often and the tokenizer of a silent world has in three to five
# pieces. None is part of a word of that world, so its texts keep their tokens.
SOUND_WORDS = (
    *(f" {kind}" for kind in (*KINDS, VOICE, "sound", "hum")),
    *(f" {how}" for how in (*PITCHES, *LOUDNESSES)),
    *(" hear", " heard", " flash", " match", " make", " nothing", " says"),
)


def add_sound_words(tokenizer) -> int:
    """Gives a tokenizer a token for each of SOUND_WORDS; how many rows its table grows by."""
    words = [AddedToken(word, normalized=False, special=False) for word in SOUND_WORDS]
    return tokenizer.add_tokens(words)


def world_text(seed: int, scenes: int) -> Iterator[str]:
    """Questions, answers and prompt frames of random scenes: what the tokenizer learns from."""
    rng = random.Random(seed)
    for index in range(scenes):
        seconds = (0, 0) if index % 3 == 0 else (2, 16)
        scene = sample_scene(rng, Level(seconds=seconds, sprites=(0, 4), digits=0.3))
        yield "system\nuser\nassistant\n"
        yield "".join(f"Time {time_s:.1f}s:," for time_s in scene.times_s)
        for family in FAMILIES:
            qa = ask(scene, rng, family)
            if qa is not None:
                yield f"{qa.question}\n"
                yield f"{qa.answer}\n"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> Qwen2Tokenizer:
    """A tokenizer of at most vocab_size bytes and merges, and the 25 added tokens."""
    core = Tokenizer(BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = post_processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts, BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    for names, special in ((SPECIAL, True), (PLAIN, False), (VISUAL, True)):
        core.add_tokens([AddedToken(n, normalized=False, special=special) for n in names])
    return Qwen2Tokenizer(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,  # type: ignore[arg-type]  # it has none
        bos_token=None,
        additional_special_tokens=list(VISUAL),
        model_max_length=CONTEXT_TOKENS,
    )
