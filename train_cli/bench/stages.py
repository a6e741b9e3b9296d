"""From patches to an answer: encode, prefill, decode, the second question."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from transformers import DynamicCache

from train_cli.bench import peers
from train_cli.bench.measure import (
    Mismatch,
    Row,
    beside,
    cpu_s,
    equal_ids,
    same_start,
    say,
    spread,
    unchecked,
    within,
)
from train_cli.bench.models import SEED, Sizes, build, native
from vl3.inference.engine import Engine
from vl3.inference.generation import PREFILL_TOKENS, PrefixCache, PreparedPrompt, tokens
from vl3.settings import Decoding
from vl3.studio import Studio
from vl3.values import Clip, Grid
from vl3.vision import downsample
from vl3.visual_inputs import CHUNK_PATCHES, chunk_grids
from vl3.weights.load import Loaded, load

FP32_ERROR, BF16_ERROR = 1e-5, 2e-2  # relative error allowed between two orders of summation
TEXT_AFTER = 48  # tokens of a prompt after its clip
PRUNED_SHARES = (0.0, 0.25, 0.5, 0.75)


@torch.no_grad()
def encode(sizes: Sizes, rounds: int) -> list[Row]:
    """Patches to features: beside transformers, beside a dense mask, and repeated frames."""
    model, processor = build(replace(sizes, text_layers=1, vocabulary=4096))
    grid = _grid(sizes.encoded)
    pixels = _noise(grid)
    (thw, merges), shape = _sizes(grid), _shape(grid)

    def ours():
        return model.encode_vision(pixels, thw, merges)

    with native(model, processor) as stock:

        def theirs():
            floats = (pixels.float() / 255 - 0.5) / 0.5
            return stock.model.vision_model(
                floats, torch.tensor(thw), torch.tensor(merges)
            ).last_hidden_state

        rows = beside(
            f"encode {shape}, float32", ours, {"transformers": theirs}, rounds, within(FP32_ERROR)
        )
        model.bfloat16()
        rows += beside(
            f"encode {shape}, ours in bfloat16",
            ours,
            {"transformers, float32": theirs},
            rounds,
            within(BF16_ERROR),
        )
        stock.bfloat16()
        rows += beside(
            f"encode {shape}, bfloat16", ours, {"transformers": theirs}, rounds, within(BF16_ERROR)
        )
    model.float()
    return rows + _dense(model, sizes, rounds) + _repeated(model, sizes, rounds)


def _dense(model, sizes: Sizes, rounds: int) -> list[Row]:
    """Beside one attention over all patches, in float32; quadratic, so two rounds must do."""
    grid = _grid(sizes.dense)
    pixels = _noise(grid)
    half = deepcopy(model).bfloat16()
    rows = []
    for name, side, most in (("float32", model, FP32_ERROR), ("bfloat16", half, BF16_ERROR)):
        rows += beside(
            f"encode {_shape(grid)}, ours in {name}",
            lambda side=side: side.encode_vision(pixels, *_sizes(grid)),
            {
                "official (dense mask), float32": lambda: downsample(
                    peers.official_features(model.vision, pixels, grid), (grid,)
                )
            },
            min(rounds, 2),
            within(most),
        )
    return rows


def _repeated(model, sizes: Sizes, rounds: int) -> list[Row]:
    grid = _grid(sizes.repeated)
    pixels = _noise(grid)
    still = torch.arange(grid.frames) // 4  # each picture shown four times
    repeated = pixels.view(grid.frames, -1)[still].view_as(pixels)
    rows = []
    for name, chosen in (("every picture four times", repeated), ("no repeated frame", pixels)):
        rows += beside(
            f"encode {_shape(grid)}, {name}",
            lambda chosen=chosen: model.encode_vision(chosen, *_sizes(grid)),
            {"each frame on its own": lambda chosen=chosen: _each(model, chosen, grid)},
            rounds,
            within(FP32_ERROR),
        )
    return rows


def _each(model, pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Features with every frame encoded, a few at a time as encode_vision does."""
    parts, start = [], 0
    for chunk in chunk_grids([grid], CHUNK_PATCHES["cpu"]):
        stop = start + sum(part.num_patches for part in chunk)
        parts.append(downsample(model.vision(pixels[start:stop], chunk), chunk))
        start = stop
    return torch.cat(parts)


@torch.no_grad()
def prefill(sizes: Sizes, rounds: int) -> list[Row]:
    """Prompt to first token at growing pruned shares, beside transformers and beside all logits."""
    model, processor = build(replace(sizes, vision_layers=1))
    rows = []
    with native(model, processor) as stock:
        for share in PRUNED_SHARES:
            visual = round(sizes.visual_tokens * (1 - share))
            asked = question(model, visual)
            embeds = whole(model, asked)
            rows += beside(
                f"prefill, {visual} visual tokens ({share:.0%} pruned)",
                lambda asked=asked: answer(model, asked, 1),
                {"transformers": lambda embeds=embeds: generated(stock, embeds, 1)},
                rounds,
                equal_ids,
            )
        asked = question(model, sizes.full_logits)
        embeds = whole(model, asked)
        rows += beside(
            f"prefill, {sizes.full_logits} visual tokens",
            lambda: answer(model, asked, 1),
            {"transformers, logits of all positions": lambda: all_logits(stock, embeds)},
            rounds,
            equal_ids,
        )
    return rows + _less_input(sizes, rounds)


def _less_input(sizes: Sizes, rounds: int) -> list[Row]:
    """Prefill of pruned prompts beside that of the whole one, in bfloat16 and some layers deeper.

    The head works once whatever the length: with few layers it would hide what pruning saves.
    """
    visual, layers = sizes.pruned
    model, _ = build(replace(sizes, vision_layers=1, text_layers=layers))
    model.bfloat16()
    full, rows = question(model, visual), []
    for share in PRUNED_SHARES[1:]:
        less = question(model, round(visual * (1 - share)))
        work = prefill_flops(model, full) / prefill_flops(model, less)
        rows += beside(
            f"prefill of {visual} visual tokens, {share:.0%} pruned: {work:.2f} x less work",
            lambda less=less: answer(model, less, 1),
            {"nothing pruned": lambda: answer(model, full, 1)},
            rounds,
            unchecked,
        )
    return rows


def prefill_flops(model, asked: PreparedPrompt) -> float:
    """Multiplications and additions from a prompt to its first token; attention is causal."""
    text, tokens = model.config.text_config, len(asked.ids)
    layers = sum(weight.numel() for weight in model.language.model.layers.parameters())
    attention = 2 * text.num_hidden_layers * text.hidden_size * tokens**2
    return 2 * tokens * layers + attention + 2 * text.hidden_size * text.vocab_size


@torch.no_grad()
def decode(sizes: Sizes, rounds: int) -> list[Row]:
    """An answer to a short prompt, token by token, and to a later question about a long clip."""
    model, processor = build(replace(sizes, vision_layers=1))
    asked, count = question(model, 32), sizes.new_tokens
    embeds = whole(model, asked)
    with native(model, processor) as stock:
        rows = beside(
            f"answer of {count} tokens",
            lambda: answer(model, asked, count),
            {"transformers": lambda: generated(stock, embeds, count)},
            rounds,
            equal_ids,
        )
    model, processor = build(replace(sizes, vision_layers=1, text_layers=sizes.pruned[1]))
    with native(model, processor) as stock:
        model.bfloat16()
        stock.bfloat16()
        for visual in sizes.remembered:
            asked = question(model, visual)
            prefix, cache = PrefixCache(), DynamicCache()
            start, rest = whole(model, asked).bfloat16().split([asked.ends[0], TEXT_AFTER], dim=1)
            for part in start.split(PREFILL_TOKENS["cpu"], dim=1):
                stock.model(inputs_embeds=part, past_key_values=cache, use_cache=True)
            rows += beside(
                f"answer of {count} tokens after {visual:,} visual ones, bfloat16",
                lambda asked=asked, prefix=prefix: answer(model, asked, count, prefix),
                {
                    "transformers": lambda cache=cache, rest=rest: continued(
                        stock, cache, rest, count
                    )
                },
                rounds,
                same_start,
            )
    return rows


def second_question(sizes: Sizes, rounds: int) -> list[Row]:
    """Time to the first token: a second question about a clip against the first; cold answers."""
    rows = []
    random = build(sizes)
    for name, loaded in (
        ("nano", load()),
        (
            "released widths, few layers",
            Loaded(*random, name="random", folder=Path(), adapter=None, quantized=None),
        ),
    ):
        side = 14 * sizes.encoded[1]
        noise = torch.randint(0, 256, (24, side, side, 3), dtype=torch.uint8).numpy()
        clip = Clip(frames_TYX3=noise, times_s=tuple(map(float, range(24))), source="noise")
        rows.append(_second(f"second question, 24 frames, {name}", loaded, clip, rounds))
    return rows


def _second(work: str, loaded: Loaded, clip: Clip, rounds: int) -> Row:
    say(work)
    asked = ("What happens in the video?", "How many shapes are there?")
    shown = {"type": "video", "video": clip}
    questions = [
        [{"role": "user", "content": [shown, {"type": "text", "text": text}]}] for text in asked
    ]
    firsts, seconds = [], []
    for _ in range(rounds + 1):
        studio = Studio(Engine(loaded))
        times = [_first_token_s(studio, messages) for messages in questions]
        firsts.append(times[0])
        seconds.append(times[1])
    warm, cold = Studio(Engine(loaded)), Studio(Engine(loaded))
    warm.reply(questions[0], max_new_tokens=1)
    texts = [studio.reply(questions[1], max_new_tokens=8).text for studio in (warm, cold)]
    if texts[0] != texts[1]:
        raise Mismatch(f"{work}: {texts[0]!r} against {texts[1]!r} from empty caches")
    firsts, seconds = firsts[1:], seconds[1:]
    return Row(
        work=work,
        peer="first question",
        ours_s=spread([cpu for cpu, _ in seconds]),
        theirs_s=spread([cpu for cpu, _ in firsts]),
        ratio=spread([a[0] / b[0] for a, b in zip(firsts, seconds)]),
        ours_wall_s=spread([wall for _, wall in seconds])[1],
        theirs_wall_s=spread([wall for _, wall in firsts])[1],
        check="same answer as from empty caches",
    )


def _first_token_s(studio: Studio, messages) -> tuple[float, float]:
    """CPU and wall seconds to the first new token."""
    cpu, wall = cpu_s(), time.perf_counter()
    studio.reply(messages, max_new_tokens=1)
    return cpu_s() - cpu, time.perf_counter() - wall


def question(model, visual: int) -> PreparedPrompt:
    """A prompt of 16 text tokens, so many visual ones and TEXT_AFTER more of text."""
    chooser = torch.Generator().manual_seed(SEED)
    words = torch.randint(300, 4000, (16 + TEXT_AFTER,), generator=chooser).tolist()
    ids = [*words[:16], *[model.config.image_token_id] * visual, *words[16:]]
    embeds = torch.randn(visual, model.config.text_config.hidden_size, generator=chooser) * 0.05
    embeds = embeds.to(model.device)
    return PreparedPrompt(
        ids=ids, ends=(16 + visual,), media_keys=("noise",), embeds=lambda _: embeds
    )


def whole(model, asked: PreparedPrompt) -> torch.Tensor:
    """The embeddings of the whole prompt, [1, L, E]."""
    ids = torch.tensor([asked.ids], device=model.device)
    return model.splice(ids, model.get_input_embeddings()(ids), asked.embeds(0))


def answer(
    model, asked: PreparedPrompt, count: int, prefix: PrefixCache | None = None
) -> list[int]:
    return list(answer_stream(model, asked, count, prefix))


def answer_stream(
    model, asked: PreparedPrompt, count: int, prefix: PrefixCache | None = None
) -> Iterator[int]:
    bare = Loaded(model, None, name="bench", folder=Path(), adapter=None, quantized=None)
    chosen = Decoding(max_new_tokens=count)
    return tokens(Engine(bare), asked, chosen, prefix or PrefixCache(), ())


def generated(stock, embeds: torch.Tensor, count: int, streamer=None) -> list[int]:
    found = stock.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        streamer=streamer,
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return found[0].tolist()


def continued(stock, cache: DynamicCache, embeds: torch.Tensor, count: int) -> list[int]:
    """As many tokens after a cache that holds the start of the prompt, and is left as it was."""
    before, found = cache.get_seq_length(), []
    for _ in range(count):
        logits = stock(
            inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        found.append(int(token))
        embeds = stock.get_input_embeddings()(token)
    cache.crop(before - cache.get_seq_length())
    return found


def all_logits(stock, embeds: torch.Tensor) -> list[int]:
    return stock(inputs_embeds=embeds, use_cache=True).logits[0, -1:].argmax(-1).tolist()


def _grid(size: tuple[int, int, int]) -> Grid:
    frames, rows, cols = size
    return Grid(frames=frames, rows=rows, cols=cols, merge=2)


def _sizes(grid: Grid) -> tuple[list[list[int]], list[int]]:
    """The grid as encode_vision takes it."""
    return [[grid.frames, grid.rows, grid.cols]], [grid.merge]


def _shape(grid: Grid) -> str:
    return f"{grid.frames} frames of {grid.rows} x {grid.cols} patches"


def _noise(grid: Grid) -> torch.Tensor:
    chooser = torch.Generator().manual_seed(SEED)
    return torch.randint(0, 256, (grid.num_patches, 588), generator=chooser, dtype=torch.uint8)
