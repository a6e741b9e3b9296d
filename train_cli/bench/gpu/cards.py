"""Whole models of the released sizes on a card: from a file to an answer, and their memory.

Weights are random. The 2B's are written to files and loaded as any checkpoint is; the 7B's are made
on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from train_cli.bench import whole
from train_cli.bench.gpu.encoder import random_model
from train_cli.bench.gpu.record import Check, Memory, Row, Skip, Speed
from train_cli.bench.gpu.steps import Place
from train_cli.bench.gpu.timing import cap, once_s, peak_bytes, reserved, start_peak
from train_cli.bench.measure import spread
from vl3.config import videollama3_2b, videollama3_7b
from vl3.families.settings import ProcessorSettings
from vl3.inference.engine import Engine
from vl3.inference.memory import USABLE, need, weight_bytes
from vl3.language.layers import decoder_layers
from vl3.processor import VL3Processor
from vl3.studio import Studio, estimate
from vl3.units import format_bytes
from vl3.video import encode
from vl3.weights.load import Loaded, load

CARDS_GB = (8, 12, 16, 24)
KINDS = ("nf4+int8", "nf4")  # those that the caps are for
FRAMES, TINY_FRAMES = 180, 3
HEIGHT_PX, WIDTH_PX, FPS = 360, 640, 3  # of the file; frames are taken once a second
ROUNDS = 2
QUESTION = "What happens?"


def checkpoint(place: Place) -> Path:
    """The folder of a 2B of random weights, which is written by whichever step is first."""
    folder = place.folder / "2b"
    if not folder.exists():
        config = whole.tiny_sizes() if place.tiny else videollama3_2b()
        partial = place.folder / "partial"
        whole.write(partial, config, place.device)
        partial.rename(folder)
    return folder


def from_a_file(place: Place) -> Iterator[Row]:
    """The 2B in 16 bits: a file of 180 frames to its answer, and memory beside the estimate."""
    import vl3

    frames = TINY_FRAMES if place.tiny else FRAMES
    folder, path = checkpoint(place), place.folder / "clip.mp4"
    _write_clip(path, frames)
    start_peak(place.device)
    made: list[Studio] = []
    load_s = once_s(lambda: made.append(vl3.load(folder, device=place.device)), place.device)
    (studio,) = made
    yield Memory(
        work="2B, bfloat16, loading",
        estimate_bytes=weight_bytes(studio.model.config, None, studio.model.dtype.itemsize),
        peak_bytes=peak_bytes(place.device),
        said=f"{load_s:.1f} s",
    )
    whole.ask_noise(studio, 2)
    totals, told = [], ""
    for _ in range(1 if place.tiny else ROUNDS):
        start_peak(place.device)
        video = {"type": "video", "video": {"path": str(path), "fps": 1, "max_frames": frames}}
        parts = [video, {"type": "text", "text": QUESTION}]
        session = studio.new_session()
        reply = session.reply([{"role": "user", "content": parts}], max_new_tokens=16)
        used = reply.ledger
        totals.append(used.first_token_s)
        told = (
            f"reading {used.decode_s:.2f} s, encoding {used.encode_s:.2f} s, pruning "
            f"{used.prune_s:.2f} s, prompt of {used.prompt_tokens:,} tokens {used.prefill_s:.2f} "
            f"s, {used.kept_tokens:,} of {used.visual_tokens:,} visual tokens kept; "
            f"{used.tokens_per_s:.1f} tokens a second"
        )
    work = f"2B, file of {frames} frames to the first token"
    yield Speed(work=work, side="ours", s=spread(totals), ratio=1.0, said=told)
    yield _memory(
        f"2B, {str(studio.model.dtype).removeprefix('torch.')}, {frames} frames",
        studio,
        None,
        used.visual_tokens,
        place,
        peak_bytes(place.device),
        None,
        told + reserved(place.device),
    )


def _memory(work, studio, kind, tokens, place, most_bytes, cap_gb, said) -> Memory:
    model = studio.model
    wanted = need(
        model.config,
        quantize=kind,
        device=place.device,
        itemsize=model.dtype.itemsize,
        tokens=tokens,
    )
    return Memory(
        work=work,
        estimate_bytes=wanted.total,
        peak_bytes=most_bytes,
        cap_gb=cap_gb,
        said=said,
    )


def _write_clip(path: Path, seconds: int) -> None:
    """Coarse noise that moves on with every frame, so that hardly anything is pruned."""
    noise = torch.Generator().manual_seed(0)
    size = (HEIGHT_PX // 8, WIDTH_PX // 8, 3)
    coarse = torch.randint(0, 256, size, generator=noise, dtype=torch.uint8)
    scene = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)
    count = seconds * FPS
    pictures = torch.stack([scene.roll(4 * number, 1) for number in range(count)])
    path.write_bytes(encode(pictures.numpy(), [number / FPS for number in range(count)]))


def under_caps(place: Place) -> Iterator[Row]:
    """The 2B in fewer bits, asked about 180 frames within what cards of each size have."""
    folder = checkpoint(place)
    for kind in KINDS:
        plans = {}
        for card_gb in CARDS_GB:
            try:
                plans[card_gb] = estimate(
                    folder,
                    device=place.device,
                    dtype="bfloat16",
                    quantize=kind,
                    memory=f"{card_gb}GB",
                )
            except ValueError as error:
                yield Skip(work=f"2B, {kind}, {card_gb} GB", why=str(error))
        if plans:
            yield from _within(plans, folder, kind, place)


def _within(plans: dict, folder: Path, kind: str, place: Place) -> Iterator[Row]:
    """One load under the smallest cap that will do, and a question under each."""
    import vl3

    frames, made = TINY_FRAMES if place.tiny else FRAMES, []

    def loading() -> None:
        made.append(vl3.load(folder, device=place.device, dtype="bfloat16", quantize=kind))

    cap(place.device, USABLE * min(plans) * 1e9)
    start_peak(place.device)
    capped_at: float | None = min(plans)
    try:
        load_s = once_s(loading, place.device)
    except RuntimeError as error:  # of which running out of memory is one
        yield _refused(f"2B, {kind}, loading within {capped_at} GB", error)
        capped_at = None
        cap(place.device, None)
        load_s = once_s(loading, place.device)
    studio = made.pop()
    yield Memory(
        work=f"2B, {kind}, loading",
        estimate_bytes=weight_bytes(studio.model.config, kind, 2, place.device),
        peak_bytes=peak_bytes(place.device),
        cap_gb=capped_at,
        said=f"{load_s:.1f} s",
    )
    whole.ask_noise(studio, 2, plans[min(plans)].budget_tokens)
    studio.release()
    for card_gb, plan in plans.items():
        session = Studio(studio.engine, fitted=plan)
        cap(place.device, USABLE * card_gb * 1e9)
        start_peak(place.device)
        try:
            yield _asked(session, f"2B, {kind}", kind, frames, plan.budget_tokens, place, card_gb)
        except RuntimeError as error:
            yield _refused(f"2B, {kind}, within {card_gb} GB", error)
        session.release()
    cap(place.device, None)


def _refused(work: str, error: RuntimeError) -> Check:
    return Check(work=work, ok=False, said=" ".join(str(error).split())[:300])


def _asked(
    studio: Studio,
    name: str,
    kind: str | None,
    frames: int,
    budget_tokens: int,
    place: Place,
    card_gb: float | None = None,
) -> Memory:
    """Memory and speed of one question about noise, of which nothing is pruned."""
    opened: list[int | None] = []
    video, reply = whole.ask_noise(
        studio, frames, budget_tokens, lambda: opened.append(peak_bytes(place.device))
    )
    most_bytes = max(filter(None, (*opened, peak_bytes(place.device))), default=None)
    used = reply.ledger
    notes = "".join(f"; {note}" for note in reply.notes)
    said = (
        f"{used.kept_tokens:,} tokens of {used.frames} frames, encoded in "
        f"{video.ledger.encode_s:.2f} s, first token after {used.first_token_s:.2f} s, "
        f"{used.tokens_per_s:.1f} tokens a second{reserved(place.device)}{notes}"
    )
    tokens = video.grid.num_tokens
    return _memory(name, studio, kind, tokens, place, most_bytes, card_gb, said)


def large(place: Place) -> Iterator[Row]:
    """The 7B in bfloat16, then with the linears of its language model in nf4."""
    config = whole.tiny_sizes() if place.tiny else videollama3_7b()
    frames, budget = TINY_FRAMES if place.tiny else FRAMES, ProcessorSettings().budget_tokens
    if place.device == "cuda":
        wanted = need(config, quantize=None, device="cuda", itemsize=2, tokens=budget).total
        free = torch.cuda.mem_get_info()[0]
        if wanted > free * USABLE:
            why = f"{format_bytes(wanted)} are needed and {format_bytes(free)} are free"
            yield Skip(work="7B", why=why)
            return
    ours = load(device="cpu").processor
    config.image_token_id = ours.slot_ids.image
    start_peak(place.device)
    model = random_model(config, place)
    settings = ProcessorSettings(system_prompt=False)
    processor = VL3Processor(ours.tokenizer, settings, image_token_id=ours.slot_ids.image)
    for kind in (None, "nf4"):
        if kind and find_spec("bitsandbytes") is None:
            yield Skip(work="7B, nf4", why="bitsandbytes is not installed")
            return
        if kind:
            to_nf4(model, place.device)
        loaded = Loaded(
            model, processor, name="7B", folder=place.folder, adapter=None, quantized=None
        )
        studio = Studio(Engine(loaded))
        whole.ask_noise(studio, 2, budget)
        studio.release()
        start_peak(place.device)
        yield _asked(studio, f"7B, {kind or 'bfloat16'}", kind, frames, budget, place)
        studio.release()


def to_nf4(model: nn.Module, device: str) -> None:
    """Replaces the linears of the language model's layers by bitsandbytes' layers, as vl3.load
    asks for them, one after the other."""
    import bitsandbytes as bnb

    layers: Sequence[nn.Module] = decoder_layers(model.language)
    for block in layers:
        for name, old in list(block.named_modules()):
            if type(old) is not nn.Linear:
                continue
            new = bnb.nn.Linear4bit(
                old.in_features,
                old.out_features,
                bias=old.bias is not None,
                compute_dtype=old.weight.dtype,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            new.weight = bnb.nn.Params4bit(
                old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to(device)
            new.bias = old.bias
            block.set_submodule(name, new)
