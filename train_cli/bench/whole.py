"""Whole answers by models of the released sizes: their memory under a cap, beside the estimate.

The weights are random, written in this project's layout and loaded as any checkpoint is; the clip
is noise of 180 frames, of which nothing is pruned. Every row is a process of its own that the
system (or torch, on a GPU) gives no more memory than its card has.
"""

from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from train_cli.bench.measure import Mismatch, in_process, say
from vl3 import config as sizes
from vl3.families.settings import ProcessorSettings
from vl3.inference.memory import KINDS, USABLE, need
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.values import Clip
from vl3.weights.load import load, pick_device

CARDS_GB = (8, 12, 16, 24)
FRAMES, HEIGHT_PX, WIDTH_PX = 180, 196, 336  # 640 x 360 under the whole budget: 15,120 tokens
NEW_TOKENS = 16
SHARD_BYTES = 1 << 30
SAMPLED_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One answer: bytes estimated and at most held, above the start; wall seconds of its stages.

    card_gb: the memory it was given; tokens: of frames_seen frames, none of them pruned; the first
    token comes first_token_s after the encoding
    """

    model: str
    quantize: str | None
    card_gb: float
    frames_seen: int
    tokens: int
    weights_bytes: int
    estimate_bytes: float
    peak_bytes: int
    load_s: float
    encode_s: float
    first_token_s: float
    tokens_per_s: float


def answers(folder: Path, size: str, tiny: bool = False) -> list[Answered]:
    """A row for each quantization, on the smallest card that it is the choice for, or fits."""
    config = tiny_sizes() if tiny else getattr(sizes, f"videollama3_{size.lower()}")()
    frames = 3 if tiny else FRAMES
    say(f"{size}: writing random weights")
    write(folder, config)
    rows = []
    try:
        for kind in (None,) if tiny else KINDS:
            card_gb = _card(config, kind)
            say(f"{size}, {kind or 'bfloat16'}, {frames} frames, a card of {card_gb} GB")
            row = in_process(_answer, size, str(folder), kind, card_gb, frames)
            say(str(row))
            rows.append(row)
    finally:
        shutil.rmtree(folder)
    return rows


def _card(config, kind: str | None) -> int:
    """The smallest card that holds this quantization."""
    wanted = need(
        config, quantize=kind, device="cuda", itemsize=2, tokens=ProcessorSettings().budget_tokens
    ).total
    return next(card_gb for card_gb in CARDS_GB if wanted <= card_gb * 1e9 * USABLE)


def write(folder: Path, config, device: str = "cpu") -> None:
    """A checkpoint of random bfloat16 weights, a shard at a time in memory.

    device: where they are drawn, which takes a GPU a second and a core half a minute
    """
    folder.mkdir()
    with torch.device("meta"):
        model = VL3ForConditionalGeneration(config)
    noise, shard, index = torch.Generator(device).manual_seed(0), {}, {}

    def save() -> None:
        name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, weight in model.named_parameters():  # a tied head comes once
        is_scale = weight.dim() == 1 and name.endswith("weight")
        drawn = torch.empty(weight.shape, dtype=torch.bfloat16, device=device)
        drawn = drawn.fill_(1) if is_scale else drawn.normal_(std=0.02, generator=noise)
        shard[name] = drawn.cpu()
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            save()
    if shard:
        save()
    whole = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(whole), "utf-8")
    nano = load().processor
    config.image_token_id = nano.slot_ids.image
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    VL3Processor(
        nano.tokenizer, ProcessorSettings(system_prompt=False), image_token_id=config.image_token_id
    ).save_pretrained(folder)


def _answer(size: str, folder: str, kind: str | None, card_gb: float, frames: int) -> Answered:
    """In a process of its own: loads, answers, and says what it took."""
    from transformers.utils import logging

    import vl3

    logging.disable_progress_bar()
    device = pick_device("auto")
    ask_noise(vl3.load(quantize=kind, dtype="bfloat16"), 2)  # libraries that come when needed
    stored = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    started, watch = time.perf_counter(), Watch(device, card_gb * 1e9, stored)
    studio = vl3.load(folder, quantize=kind, dtype="bfloat16", offline=True)
    load_s = time.perf_counter() - started
    watch.loaded(studio.model)
    video, reply = ask_noise(studio, frames, on_opened=watch.note)
    most_bytes = watch.end()
    if reply.notes:
        raise Mismatch(f"no whole answer within {card_gb} GB: {reply.notes[0]}")
    ledger, itemsize = reply.ledger, torch.bfloat16.itemsize
    return Answered(
        model=size,
        quantize=kind,
        card_gb=card_gb,
        frames_seen=ledger.frames,
        tokens=ledger.kept_tokens,
        weights_bytes=studio.card["weights_bytes"],
        estimate_bytes=need(
            studio.model.config,
            quantize=kind,
            device=device.type,
            itemsize=itemsize,
            tokens=video.grid.num_tokens,
        ).total,
        peak_bytes=most_bytes,
        load_s=load_s,
        encode_s=video.ledger.encode_s,
        first_token_s=ledger.first_token_s,
        tokens_per_s=ledger.tokens_per_s,
    )


def ask_noise(
    studio,
    frames: int,
    budget_tokens: int | None = None,
    on_opened: Callable[[], object] = lambda: None,
) -> tuple:
    """A clip of noise, opened under this budget or the whole one, and the reply about it.

    on_opened: called in between, where what a GPU held at most is to be read: it counts anew for
    each reply
    """
    noise = np.random.default_rng(0)
    pixels = noise.integers(0, 256, (frames, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
    clip = Clip(frames_TYX3=pixels, times_s=tuple(map(float, range(frames))), source="noise")
    budget = budget_tokens or ProcessorSettings().budget_tokens
    video = studio.open(clip, max_frames=frames, budget_tokens=budget)
    on_opened()
    parts = [{"type": "video", "video": video}, {"type": "text", "text": "What happens?"}]
    *_, reply = studio.stream([{"role": "user", "content": parts}], max_new_tokens=NEW_TOKENS)
    return video, reply


class Watch:
    """Caps the memory of this process, and notes the most that it held beyond the start.

    A GPU's: torch sees to the cap and counts. The computer's: what belongs to this process alone,
    and the weights that stay in the file they are mapped from. The rest of such a file can be
    dropped at any time, though the system adds it to both sizes that it shows and limits.
    """

    def __init__(self, device: torch.device, cap_bytes: float, file_bytes: int) -> None:
        self.device, self.cap_bytes = device, cap_bytes
        self.most_bytes = self.mapped_bytes = 0
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1, USABLE * cap_bytes / total), device)
            return
        _limit(cap_bytes + file_bytes)
        self._before, self._ended = _own_bytes(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def loaded(self, model: VL3ForConditionalGeneration) -> None:
        """To be called once the weights are where they stay."""
        if self.device.type == "cuda":
            return
        files = _mapped_files()
        starts = [(weight.data_ptr(), weight.nbytes) for weight in model.parameters()]
        self.mapped_bytes = sum(
            size for start, size in starts if any(a <= start < b for a, b in files)
        )
        _limit(self.cap_bytes - self.mapped_bytes + sum(b - a for a, b in files))

    def note(self) -> None:
        """To be called before torch counts a GPU's memory anew."""
        if self.device.type == "cuda":
            held = torch.cuda.max_memory_allocated(self.device)
            self.most_bytes = max(self.most_bytes, held)

    def end(self) -> int:
        if self.device.type == "cuda":
            self.note()
            return self.most_bytes
        self._ended.set()
        self._watcher.join()
        return self.most_bytes + self.mapped_bytes

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLED_S):
            self.most_bytes = max(self.most_bytes, _own_bytes() - self._before)


def _limit(size_bytes: float) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (int(size_bytes), resource.RLIM_INFINITY))


def _own_bytes() -> int:
    with open("/proc/self/status") as file:
        return 1024 * int(file.read().split("RssAnon:")[1].split()[0])


def _mapped_files() -> list[tuple[int, int]]:
    """First and last address of each part of a checkpoint that is mapped into this process."""
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file if line.rstrip().endswith(".safetensors")]
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]


def tiny_sizes():
    return sizes.nano(vocab_size=2048, image_token_id=0)
