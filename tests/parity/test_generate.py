"""generate() with a clip, on nano: as on embeddings that hold it, as transformers' own class."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, VideoLlama3ForConditionalGeneration

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.weights.export import export
from vl3.weights.load import load

CLIPS = NANO.parent / "clips"
ASKED = (
    ("three_shapes", "What colour is the star?"),
    ("circle_then_star", "What is first?"),
    (None, "What do you see?"),
)
GREEDY = {"do_sample": False, "max_new_tokens": 12}
WAYS = {
    "greedy": {},
    "three beams": {"num_beams": 3},
    "beams, all of them": {"num_beams": 3, "num_return_sequences": 3},
    "beams without a cache": {"num_beams": 3, "use_cache": False, "max_new_tokens": 3},
    "samples": {"do_sample": True, "num_return_sequences": 3, "temperature": 2.0},
    "read in chunks": {"prefill_chunk_size": 17},
}


@pytest.fixture(scope="module")
def nano():
    return load(device="cpu")


@pytest.fixture(scope="module")
def conversations():
    """Two prompts of other lengths, with other numbers of visual tokens, and one without any."""
    return [
        [
            {
                "role": "user",
                "content": [
                    {"type": "video", "video": str(CLIPS / f"{clip}.mp4")},
                    {"type": "text", "text": question},
                ],
            }
        ]
        if clip
        else [{"role": "user", "content": question}]
        for clip, question in ASKED
    ]


@pytest.fixture(scope="module")
def inputs(nano, conversations):
    return nano.processor(conversations, add_generation_prompt=True)


@pytest.fixture(scope="module")
def visual(nano, inputs):
    names = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask")
    with torch.no_grad():
        return nano.model.embed_visual(*(inputs[name] for name in names))


@pytest.fixture(scope="module")
def native(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    export(nano.model, nano.processor, folder, "native")
    return VideoLlama3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def said(model, seed=0, **options) -> list[list[int]]:
    torch.manual_seed(seed)
    return model.generate(**(GREEDY | options)).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_repeated_by_prompt(nano, inputs, visual, way):
    model, ids, options = nano.model, inputs["input_ids"], WAYS[way]
    pixels = said(model, **inputs, **options)
    text = {"input_ids": ids, "attention_mask": inputs["attention_mask"]}
    assert said(model, **text, visual_embeds=visual, **options) == pixels
    if way != "read in chunks":  # which transformers does not do with embeddings
        spliced = model.splice(ids, model.get_input_embeddings()(ids), visual).detach()
        options = {name: value for name, value in options.items() if name != "use_cache"}
        embeds = said(
            model, inputs_embeds=spliced, attention_mask=inputs["attention_mask"], **options
        )
        assert embeds == [row[ids.shape[1] :] for row in pixels]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "samples"])
def test_a_batch_is_answered_as_by_transformers(nano, conversations, native, way):
    """Unpruned: with beams and chunks theirs counts the tokens before the pruner's mask."""
    inputs = nano.processor(conversations, add_generation_prompt=True, prune=None)
    ids, options = inputs["input_ids"], WAYS[way]
    theirs = said(
        native,
        input_ids=ids.masked_fill(nano.model.slots(ids), native.config.video_token_id),
        attention_mask=inputs["attention_mask"],
        **video(inputs),
        **options,
    )
    ours = said(nano.model, **inputs, **options)
    length = ids.shape[1]
    assert [row[length:] for row in ours] == [row[length:] for row in theirs]


def video(inputs) -> dict:
    return {
        "pixel_values_videos": inputs["pixel_values"].float() / 127.5 - 1,
        "video_grid_thw": inputs["grid_thw"],
        "video_merge_sizes": inputs["merge_sizes"],
    }


def one(inputs, row: int) -> dict:
    """The inputs of one prompt of the batch that has a clip."""
    grids = inputs["grid_thw"].prod(1)
    patches, tokens = (
        x.split(sizes)[row]
        for x, sizes in (
            (inputs["pixel_values"], grids.tolist()),
            (inputs["keep_mask"], (grids // inputs["merge_sizes"] ** 2).tolist()),
        )
    )
    begins = int(inputs["attention_mask"][row].argmax())
    return {
        "input_ids": inputs["input_ids"][row : row + 1, begins:],
        "pixel_values": patches,
        "grid_thw": inputs["grid_thw"][row : row + 1],
        "keep_mask": tokens,
        "merge_sizes": inputs["merge_sizes"][row : row + 1],
    }


def test_beams_of_a_batch_are_those_of_each_prompt_alone(nano, inputs):
    together = nano.model.generate(**inputs, num_beams=3, **GREEDY)[
        :, inputs["input_ids"].shape[1] :
    ]
    for row in range(2):
        alone = one(inputs, row)
        found = nano.model.generate(**alone, num_beams=3, **GREEDY)[
            0, alone["input_ids"].shape[1] :
        ]
        assert together[row, : len(found)].tolist() == found.tolist()
    assert together[0].tolist() != together[1].tolist()


def test_beams_encode_the_clip_once(nano, inputs, monkeypatch):
    seen, encode = [], nano.model.vision.forward

    def counting(pixels_NP, grids):
        seen.append(len(pixels_NP))
        return encode(pixels_NP, grids)

    nano.model.generate(**inputs, **GREEDY)
    monkeypatch.setattr(nano.model.vision, "forward", counting)
    nano.model.generate(**inputs, **GREEDY)
    once = list(seen)
    seen.clear()
    nano.model.generate(**inputs, num_beams=3, use_cache=False, do_sample=False, max_new_tokens=3)
    assert seen == once


def test_an_assistant_changes_nothing(nano, inputs):
    alone = one(inputs, 0)
    torch.manual_seed(0)
    sizes = nano.model.config.text_config.to_dict() | {
        "num_hidden_layers": 1,
        "layer_types": ["full_attention"],
    }
    stranger = Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()
    plain = said(nano.model, **alone)
    for assistant in (nano.model, nano.model.language, stranger):
        assert said(nano.model, **alone, assistant_model=assistant) == plain
    assert said(nano.model, **alone, prompt_lookup_num_tokens=3) == plain


def test_a_miscount_is_told_before_anything_is_generated(nano, inputs):
    with pytest.raises(ValueError, match=r"\d+ visual slots but \d+ visual tokens"):
        nano.model.generate(**(inputs | {"keep_mask": torch.ones_like(inputs["keep_mask"])}))


def test_images_and_videos_with_slots_of_their_own(native, inputs, tmp_path):
    """The native layout marks them with two tokens; ours takes both in the order of the prompt."""
    native.save_pretrained(tmp_path)
    ours = VL3ForConditionalGeneration.from_pretrained(tmp_path).eval()
    image, film = (native.config.image_token_id, native.config.video_token_id)
    noise = torch.Generator().manual_seed(0)
    pixels = torch.rand(16 + 32, 588, generator=noise) * 2 - 1
    ids = torch.tensor([[5, film, film, 6, *[image] * 4, 7, *[film] * 6, 8]])
    grids = torch.tensor([[1, 2, 4], [1, 4, 4], [3, 2, 4]])
    merges = torch.tensor([2, 2, 2])
    first, middle, last = pixels.split([8, 16, 24])
    with torch.no_grad():
        mixed = ours.embed_visual(pixels, grids, merges)
    options = {"num_beams": 3, "pad_token_id": 0}
    theirs = said(
        native,
        input_ids=ids,
        pixel_values=middle,
        image_grid_thw=grids[1:2],
        image_merge_sizes=merges[1:2],
        pixel_values_videos=torch.cat([first, last]),
        video_grid_thw=grids[[0, 2]],
        video_merge_sizes=merges[[0, 2]],
        **options,
    )
    assert said(ours, input_ids=ids, visual_embeds=mixed, **options) == theirs
    assert said(ours, input_ids=ids, visual_embeds=mixed.flip(0), **options) != theirs
    assert said(ours, input_ids=ids, visual_embeds=mixed, prefill_chunk_size=4, pad_token_id=0) == (
        said(ours, input_ids=ids, visual_embeds=mixed, pad_token_id=0)
    )
