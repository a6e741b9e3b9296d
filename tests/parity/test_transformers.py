"""Parity with transformers' own video_llama_3, both ways, on random tiny models built here."""

import pytest
import torch
from conftest import wide_awake
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

from vl3.model import VL3ForConditionalGeneration
from vl3.values import Grid, Patches
from vl3.vision import prune, rope2d
from vl3.weights.export import export
from vl3.weights.load import load

GRIDS = [[3, 4, 6], [2, 6, 2]]
TOLERANCE = 1e-4  # float32, other order of sums; logits are of order 1


def theirs_inputs(ids, pixels, keep, video_token_id):
    return {
        "input_ids": ids.masked_fill(ids == -1, video_token_id),
        "pixel_values_videos": pixels,
        "video_grid_thw": torch.tensor(GRIDS),
        "video_merge_sizes": torch.tensor([2, 2]),
        "video_compression_mask": keep,
    }


def ours_inputs(ids, pixels, keep, image_token_id):
    return {
        "input_ids": ids.masked_fill(ids == -1, image_token_id),
        "pixel_values": pixels,
        "grid_thw": torch.tensor(GRIDS),
        "merge_sizes": torch.tensor([2, 2]),
        "keep_mask": keep,
    }


@pytest.fixture(scope="module")
def question():
    """Two clips of which some tokens are dropped; -1 marks visual slots."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(72 + 24, 588, generator=generator) * 2 - 1
    keep = torch.rand(18 + 6, generator=generator) > 0.3
    first, second = int(keep[:18].sum()), int(keep[18:].sum())
    ids = torch.tensor([[5, 6, *[-1] * first, 7, *[-1] * second, 8, 9]])
    return ids, pixels, keep


def test_a_model_of_ours_says_the_same_in_transformers(
    tiny_model, tiny_processor, tmp_path, question
):
    export(tiny_model, tiny_processor, tmp_path, "native")
    stock = VideoLlama3ForConditionalGeneration.from_pretrained(tmp_path).eval()
    ids, pixels, keep = question
    with torch.no_grad():
        theirs = stock(**theirs_inputs(ids, pixels, keep, stock.config.video_token_id)).logits
        ours = tiny_model(**ours_inputs(ids, pixels, keep, tiny_model.config.image_token_id)).logits
        wrong = keep.roll(1)
        canary = tiny_model(
            **ours_inputs(ids, pixels, wrong, tiny_model.config.image_token_id)
        ).logits
    assert ours.abs().mean() > 0.1, "logits that could differ"
    assert (ours - theirs).abs().max() < TOLERANCE
    assert (canary - theirs).abs().max() > 100 * TOLERANCE


@pytest.fixture(scope="module")
def stock(tokenizer):
    names = ("<|image_pad|>", "<|video_pad|>")
    image, video = tokenizer.convert_tokens_to_ids(list(names))
    config = VideoLlama3Config(
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "patch_size": 14,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 400,
        },
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return wide_awake(VideoLlama3ForConditionalGeneration(config))


def test_a_model_of_transformers_says_the_same_here(
    stock, tokenizer, tiny_processor, tmp_path, question
):
    stock.save_pretrained(tmp_path)
    ours = VL3ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert ours.config.slot_token_ids == (
        stock.config.image_token_id,
        stock.config.video_token_id,
    )
    ids, pixels, keep = question
    with torch.no_grad():
        theirs = stock(**theirs_inputs(ids, pixels, keep, stock.config.video_token_id)).logits
        here = ours(**ours_inputs(ids, pixels, keep, stock.config.video_token_id)).logits
    assert (here - theirs).abs().max() < TOLERANCE
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    said = stock.generate(
        **theirs_inputs(ids, pixels, keep, stock.config.video_token_id), **options
    )
    assert torch.equal(
        said,
        ours.generate(**ours_inputs(ids, pixels, keep, stock.config.video_token_id), **options),
    )


def test_vision_features_and_a_wrong_rotation(stock, tmp_path, question, monkeypatch):
    stock.save_pretrained(tmp_path)
    ours = VL3ForConditionalGeneration.from_pretrained(tmp_path).eval()
    _, pixels, _ = question
    with torch.no_grad():
        theirs = stock.model.vision_model(
            pixels, torch.tensor(GRIDS), torch.tensor([2, 2])
        ).last_hidden_state
        here = ours.encode_vision(pixels, GRIDS, [2, 2])
        assert (here - theirs).abs().max() < 2e-5
        right = rope2d.positions
        monkeypatch.setattr(rope2d, "positions", lambda *a: right(*a).flip(-1))
        assert (ours.encode_vision(pixels, GRIDS, [2, 2]) - theirs).abs().max() > 1e-3


def test_the_mask_of_transformers_video_processor_formula():
    """Their mask, written out from its definition in the documentation of the pruner."""
    generator = torch.Generator().manual_seed(2)
    frames = torch.rand(4, 6, 2352, generator=generator) * 2 - 1
    frames[2] = frames[1] + 1e-4 * (torch.arange(6) * 2)[:, None]
    distance = (frames[1:] - frames[:-1]).abs().mean(-1) * 255
    expected = torch.cat([torch.ones(1, 6, dtype=torch.bool), distance > 0.1])
    grid = Grid(frames=4, rows=4, cols=6, merge=2)
    got = prune(Patches(pixels_NP=frames.reshape(96, 588), grids=(grid,)), 0.1)
    assert torch.equal(got.keep_M, expected.flatten())
    assert 0 < expected[2].sum() < 6


def test_the_round_trip_through_transformers_keeps_every_tensor(
    tiny_model, tiny_processor, tmp_path
):
    export(tiny_model, tiny_processor, tmp_path / "native", "native")
    VideoLlama3ForConditionalGeneration.from_pretrained(tmp_path / "native").save_pretrained(
        tmp_path / "again"
    )
    tiny_processor.tokenizer.save_pretrained(tmp_path / "again")
    processors = (tmp_path / "native/processor_config.json").read_text()
    (tmp_path / "again/processor_config.json").write_text(processors)
    back = load(tmp_path / "again").model.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in tiny_model.state_dict().items())
