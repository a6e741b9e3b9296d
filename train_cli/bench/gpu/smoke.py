"""Whether everything runs on a GPU at all, and says what it says on a CPU.

Small models, whose answers are compared with the CPU's in float32: logits of a whole prompt, ids of
a greedy answer, a session of questions, weights in 4 and 8 bits, memory that is short, a stream.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from train_cli.bench.gpu.record import Check, Row, Skip, Speed
from train_cli.bench.gpu.steps import Place
from train_cli.bench.gpu.timing import cap, wait
from train_cli.bench.measure import spread
from vl3.bundled import CLIPS, HOME, NANO
from vl3.inference.fingerprint import fingerprint
from vl3.ops import KNOB
from vl3.values import Clip, Grid, Patches
from vl3.vision.prune import prune, prune_piece

QUESTIONS = ("What happens in the video?", "Which colours are there?")
NEW_TOKENS = 24
RECORDED = {
    "recorded, transformers' layout": "vl3_hf_tiny/ckpt",
    "recorded, official layout": "vl3_official_tiny/ckpt_a",
}
# float32 sums in another order. By default cuDNN takes TF32 for convolutions, of which the encoder
# has one, its patch embedding: ten bits of a product, so that is judged apart.
FP32_ERROR, TF32_ERROR = 1e-4, 1e-2
HALF_AS_CPU = 3  # times the error that bfloat16 has on the CPU itself
QUANTIZED_AS_CPU = 1.5  # times what the same rounding does to the logits on the CPU
PUSHES, TINY_PUSHES = 200, 12
LIVE = Grid(frames=1, rows=18, cols=32, merge=2)  # a frame of 448 x 252 pixels
SPARE_BYTES = 16 << 20  # left beside nano while memory is short
MOST_GROWN = 1 << 20  # bytes that a stream may hold more at its end than at its start


def answers(place: Place) -> Iterator[Row]:
    """nano and the recorded checkpoints beside the CPU, then a session of questions with nano."""
    yield from _beside_cpu("nano", NANO, place)
    for name, folder in RECORDED.items():
        found = recorded(folder)
        if found is None:
            yield Skip(work=name, why=f"{folder} is not beside this checkout, nor in its shared/")
        else:
            yield from _beside_cpu(name, found, place)
    yield from session(place)


def recorded(name: str) -> Path | None:
    """A recorded checkpoint, where shared/ is beside the checkout or in it."""
    places = (HOME.parent / "shared/fixtures" / name, HOME / "shared/fixtures" / name)
    return next((path for path in places if path.is_dir()), None)


def noise_clip(frames: int = 8, side_px: int = 112) -> Clip:
    """Noise that stands still for two frames each time, so that half of it is pruned."""
    noise = np.random.default_rng(0)
    shown = noise.integers(0, 256, (frames // 2, side_px, side_px, 3), dtype=np.uint8)
    return Clip(
        frames_TYX3=np.repeat(shown, 2, axis=0),
        times_s=tuple(map(float, range(2 * len(shown)))),
        source="noise",
    )


def asked(clip: Clip) -> list[dict]:
    """The first question about a clip, as messages."""
    parts = [{"type": "video", "video": clip}, {"type": "text", "text": QUESTIONS[0]}]
    return [{"role": "user", "content": parts}]


def _beside_cpu(name: str, folder: Path, place: Place) -> Iterator[Check]:
    import vl3

    here = vl3.load(folder, device="cpu", dtype="float32", offline=True)
    half = vl3.load(folder, device="cpu", dtype="bfloat16", offline=True)
    messages = asked(noise_clip())
    exact, rounded = (logits(studio, messages) for studio in (here, half))
    own = relative(rounded, exact)
    ids = here.reply(messages, max_new_tokens=NEW_TOKENS).token_ids
    for dtype, precise, most in (
        ("float32", True, FP32_ERROR),
        ("float32", False, TF32_ERROR),
        ("bfloat16", False, HALF_AS_CPU * own),
    ):
        there = vl3.load(folder, device=place.device, dtype=dtype, offline=True)
        with no_tf32() if precise else nullcontext():
            error = relative(logits(there, messages), exact)
            reply = there.reply(messages, max_new_tokens=NEW_TOKENS)
        same = sum(a == b for a, b in zip(ids, reply.token_ids))
        is_same = reply.token_ids == ids
        yield Check(
            work=f"{name}, {dtype}{', no TF32' if precise else ''}",
            ok=error <= most and (is_same or not precise),
            said=f"logits differ by {error:.1e} of the CPU's, {most:.0e} allowed; "
            f"{same} of {len(ids)} tokens of the answer are the same",
        )


@torch.no_grad()
def logits(studio, messages: list[dict]) -> torch.Tensor:
    """Logits of all positions of a prompt with its clip, float32 on the CPU."""
    inputs = studio.processor(messages=messages, add_generation_prompt=True, return_tensors="pt")
    moved = {name: part.to(studio.model.device) for name, part in inputs.items()}
    return studio.model(**moved).logits.float().cpu()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@contextmanager
def no_tf32() -> Iterator[None]:
    """Within it convolutions in float32 are computed in float32, as on a CPU."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def session(place: Place) -> Iterator[Check]:
    """Questions to nano about a file: the second one, stopping, sampling, looks, beams."""
    import vl3

    studio = vl3.load(device=place.device, dtype="float32")
    here = vl3.load(device="cpu", dtype="float32")
    with no_tf32():
        yield from _questions(studio, here)
        yield _beams(studio, here)
        yield _look(studio, here)
        yield _edited(studio)


def _questions(studio, here) -> Iterator[Check]:
    path = CLIPS / "three_shapes.mp4"
    video = studio.open(path)
    texts = ["".join(studio.ask(video, question)) for question in QUESTIONS]
    said = ["".join(here.ask(here.open(path), question)) for question in QUESTIONS]
    yield Check(work="two questions about a file", ok=texts == said, said=f"{texts} and {said}")
    parts = [{"type": "video", "video": video}, {"type": "text", "text": QUESTIONS[0]}]
    messages = [{"role": "user", "content": parts}]
    second, cold = studio.reply(messages), studio.reply(messages, reuse=False)
    yield Check(
        work="a question whose clip is known already",
        ok=second.ledger.reused_tokens > 0 and second.token_ids == cold.token_ids,
        said=f"{second.ledger.reused_tokens} tokens were there, {len(cold.token_ids)} are the same",
    )
    stop = threading.Event()
    stream = studio.stream(messages, stop=stop)
    for event in stream:
        if isinstance(event, str):
            stop.set()
    after = studio.reply(messages)
    yield Check(
        work="an answer that is stopped, and the next one",
        ok=event.stopped and len(event.token_ids) < len(after.token_ids) == len(cold.token_ids),
        said=f"stopped after {len(event.token_ids)} of {len(after.token_ids)} tokens",
    )
    drawn = [
        studio.reply(messages, temperature=0.9, top_p=0.9, seed=seed).token_ids for seed in (1, 1)
    ]
    yield Check(
        work="an answer drawn twice by one seed", ok=drawn[0] == drawn[1], said=f"{len(drawn[0])}"
    )


@torch.no_grad()
def _beams(studio, here) -> Check:
    """Three beams by transformers' generate, from embeddings, which every version takes."""
    messages, found = asked(noise_clip()), []
    for side in (studio, here):
        model = side.model
        inputs = side.processor(messages=messages, add_generation_prompt=True, return_tensors="pt")
        ids = inputs.pop("input_ids").to(model.device)
        inputs.pop("attention_mask", None)
        visual = model.embed_visual(**dict(inputs))
        embeds = model.splice(ids, model.get_input_embeddings()(ids), visual)
        found.append(
            model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=model.device),
                num_beams=3,
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
            )[0].tolist()
        )
    return Check(
        work="three beams by transformers' generate",
        ok=found[0] == found[1],
        said=f"{len(found[0])} tokens and {len(found[1])}",
    )


def _look(studio, here) -> Check:
    """Where the words of an answer looked."""
    maps = []
    for side in (studio, here):
        reply = side.reply(asked(noise_clip()), max_new_tokens=4)
        maps.append(torch.from_numpy(side.attention(reply).weight_IHQL))
    error = relative(*maps) if maps[0].shape == maps[1].shape else float("inf")
    return Check(
        work="attention maps of an answer", ok=error < FP32_ERROR, said=f"differ by {error:.1e}"
    )


def _edited(studio) -> Check:
    """A weight that is edited is noticed, and so is that it is put back."""
    vision = studio.model.vision
    first = next(vision.parameters()).data.view(-1)[:1]
    kept, before = first.clone(), fingerprint(vision)
    first += 1
    edited = fingerprint(vision)
    first.copy_(kept)
    after = fingerprint(vision)
    return Check(
        work="one edited weight is noticed",
        ok=before != edited and before == after,
        said="and that it is put back",
    )


def quantized(place: Place) -> Iterator[Row]:
    """nano with fewer bits: how far its logits move from those in float32, here and on the CPU."""
    import vl3
    from vl3.weights.quantize.bnb import KINDS

    messages = asked(noise_clip())
    exact = logits(vl3.load(device="cpu", dtype="float32"), messages)
    for kind in KINDS:
        small, home = (
            vl3.load(device=device, dtype="bfloat16", quantize=kind)
            for device in (place.device, "cpu")
        )
        error, own = (relative(logits(side, messages), exact) for side in (small, home))
        reply = small.reply(messages, max_new_tokens=NEW_TOKENS)
        yield Check(
            work=kind,
            ok=error <= QUANTIZED_AS_CPU * own and bool(reply.token_ids),
            said=f"logits move by {error:.3f}, by {own:.3f} on the CPU; {reply.text[:40]!r}, "
            f"{small.card['weights_bytes'] / 1e6:.1f} MB",
        )


def short(place: Place) -> Iterator[Check]:
    """Memory that another program takes while a long clip is asked about, and gives back."""
    yield from short_of_memory(place.device, _taken())


def short_of_memory(device: str, taken: AbstractContextManager) -> Iterator[Check]:
    """An answer before, one or a refusal while memory is taken, and the same answer afterwards."""
    import vl3
    from vl3.studio import OutOfMemory

    studio = vl3.load(device=device, dtype="bfloat16")
    small, large = asked(noise_clip()), asked(noise_clip(96, 448))
    before = studio.reply(small, max_new_tokens=NEW_TOKENS)
    studio.release()
    with taken:
        try:
            reply = studio.reply(large, max_new_tokens=NEW_TOKENS)
            said, ok = "; ".join(reply.notes) or "answered whole", bool(reply.notes)
        except OutOfMemory as error:
            said, ok = str(error), True
    yield Check(work="a clip that does not fit", ok=ok, said=said)
    after = studio.reply(small, max_new_tokens=NEW_TOKENS)
    yield Check(
        work="the answer after it",
        ok=after.token_ids == before.token_ids and not after.notes,
        said=f"{len(after.token_ids)} tokens, {len(before.token_ids)} before",
    )


@contextmanager
def _taken() -> Iterator[None]:
    """Within it torch may take hardly more of the card than it holds."""
    torch.cuda.empty_cache()
    cap("cuda", torch.cuda.memory_reserved() + SPARE_BYTES)
    try:
        yield
    finally:
        cap("cuda", None)


def stream(place: Place) -> Iterator[Row]:
    """Frames pushed one by one, of which some repeat: each push beside the whole at once."""
    pushes = TINY_PUSHES if place.tiny else PUSHES
    pixels_TNP = _live_frames(pushes)
    whole = Patches(
        pixels_NP=pixels_TNP.flatten(0, 1),
        grids=(Grid(frames=pushes, rows=LIVE.rows, cols=LIVE.cols, merge=LIVE.merge),),
    )
    there_TNP = pixels_TNP.to(place.device)
    for way in ("reference", "triton") if place.device == "cuda" else ("reference",):
        for mode, threshold in (("official", 0.1), ("rlt", 0.1), ("last_kept", 10.0)):
            expected = prune(whole, threshold, mode).keep_M
            with kernels_by(way):
                kept_M, times, grown = _pushed(there_TNP, threshold, mode)
            same = torch.equal(kept_M, expected)
            yield Check(
                work=f"{pushes} pushes, {mode}, {way}",
                ok=same and grown <= MOST_GROWN,
                said=f"{int(expected.sum())} of {len(expected)} tokens kept, "
                f"{'as' if same else 'not as'} all at once; memory grew by {grown / 1e6:.1f} MB",
            )
            yield Speed(work=f"a push, {mode}", side=way, s=spread(times), ratio=1.0)


def _pushed(pixels_TNP, threshold: float, mode) -> tuple[torch.Tensor, list[float], int]:
    """The masks of all pushes; of those after the first ones the seconds, and by how many bytes of
    the card they left it fuller."""
    device, state, kept, times, held = pixels_TNP.device.type, None, [], [], []
    for pixels_NP in pixels_TNP:
        piece = Patches(pixels_NP=pixels_NP, grids=(LIVE,))
        wait(device)
        started = time.perf_counter()
        keep, state = prune_piece(piece, state, threshold, mode)
        wait(device)
        times.append(time.perf_counter() - started)
        kept.append(keep.keep_M.cpu())
        held.append(torch.cuda.memory_allocated() if device == "cuda" else 0)
    first = len(held) // 10
    return torch.cat(kept), times[first:], held[-1] - held[first]


def _live_frames(count: int) -> torch.Tensor:
    """uint8 [T, N, P]: half of each frame's patches are those of the frame before."""
    noise = torch.Generator().manual_seed(0)
    size = (count, LIVE.num_patches, 588)
    pixels_TNP = torch.randint(0, 256, size, dtype=torch.uint8, generator=noise)
    still = LIVE.num_patches // 2
    pixels_TNP[1:, :still] = pixels_TNP[:1, :still]
    return pixels_TNP


@contextmanager
def kernels_by(choice: str) -> Iterator[None]:
    """Within it VL3_KERNELS has this value."""
    before, os.environ[KNOB] = os.environ.get(KNOB), choice
    try:
        yield
    finally:
        os.environ.pop(KNOB)
        if before is not None:
            os.environ[KNOB] = before
