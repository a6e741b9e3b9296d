"""Towers of fixed size against transformers' own models."""

import pytest
import torch
from transformers import BertConfig, CLIPVisionConfig, SiglipVisionConfig

from vl3.config import VL3Config, VL3VisionConfig
from vl3.families import check_sizes
from vl3.values import Grid
from vl3.vision import VisionEncoder, patchify
from vl3.vision.towers import KINDS, VisionTower, build_encoder, is_tower, side

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 14,
}
# As SigLIP's 384 pixels, of which 27 patches of 14 leave 6 out.
CONFIGS = {
    "clip": CLIPVisionConfig(**SIZES, image_size=42),
    "siglip": SiglipVisionConfig(**SIZES, image_size=48),
}
GRID = Grid(frames=3, rows=3, cols=3, merge=1)


@pytest.fixture(params=CONFIGS)
def tower(request) -> VisionTower:
    torch.manual_seed(5)
    found = VisionTower(CONFIGS[request.param]).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def frames(count: int = 3, seed: int = 0) -> torch.Tensor:
    shape = (count, 48, 48, 3)
    levels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return levels.to(torch.uint8)


def own_pixels(tower, frames_TYX3) -> torch.Tensor:
    """As the tower's processor hands them over: the whole square, normalised."""
    size = tower.config.image_size
    mean, std = (torch.tensor(values) for values in tower.kind[1:3])
    pixels = (frames_TYX3[:, :size, :size].float() / 255 - mean) / std
    return pixels.permute(0, 3, 1, 2)


def seen(frames_TYX3) -> torch.Tensor:
    return patchify(
        frames_TYX3[:, :42, :42], Grid(frames=len(frames_TYX3), rows=3, cols=3, merge=1)
    )


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 2, -1, -2, -4])
def test_features_are_hidden_states_of_transformers(tower, layer):
    pixels = frames()
    states = tower.tower(own_pixels(tower, pixels), output_hidden_states=True).hidden_states
    tower.config.vision_feature_layer = layer
    chosen = VisionTower(tower.config)
    chosen.load_state_dict(tower.state_dict())
    del tower.config.vision_feature_layer
    found = chosen.eval()(seen(pixels), (GRID,))
    expected = states[layer][:, tower.kind.leading :].flatten(0, 1)
    assert found.shape == expected.shape == (27, 32)
    # the same numbers in the same order; SigLIP's convolution sees a smaller picture here
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(chosen.blocks) == layer % 5
    other = states[layer - 1 if layer else 1][:, tower.kind.leading :].flatten(0, 1)
    assert not torch.allclose(found, other, atol=1e-5)


@torch.no_grad()
def test_levels_and_normalised_floats_are_the_same(tower):
    pixels = frames()
    normalised = own_pixels(tower, pixels).permute(0, 2, 3, 1)
    assert torch.equal(tower(seen(pixels), (GRID,)), tower(seen(normalised), (GRID,)))


@torch.no_grad()
def test_frames_do_not_see_one_another_and_clips_follow_one_another(tower):
    one, two = frames(), frames(2, seed=1)
    grids = (GRID, Grid(frames=2, rows=3, cols=3, merge=1))
    together = tower(torch.cat([seen(one), seen(two)]), grids)
    assert torch.allclose(together[27:], tower(seen(two), grids[1:]), atol=1e-5)
    changed = one.clone()
    changed[1] = 0
    other = tower(seen(changed), (GRID,))
    same = tower(seen(one), (GRID,))
    assert torch.equal(other[:9], same[:9])
    assert not torch.equal(other[9:18], same[9:18])


def test_another_grid_is_refused_in_words(tower):
    for grid in (
        Grid(frames=1, rows=4, cols=3, merge=1),
        Grid(frames=1, rows=4, cols=4, merge=2),
        Grid(frames=1, rows=2, cols=2, merge=1),
    ):
        with pytest.raises(ValueError, match="sees 3 x 3 patches, merged 1 x 1 - got"):
            tower(torch.zeros(grid.num_patches, 588, dtype=torch.uint8), (grid,))


def test_which_encoder_it_is_follows_from_the_sizes():
    assert isinstance(build_encoder(CONFIGS["clip"]), VisionTower)
    assert isinstance(build_encoder(VL3VisionConfig(**SIZES)), VisionEncoder)
    assert len(KINDS) == 2
    assert [side(config) for config in CONFIGS.values()] == [3, 3]
    assert not is_tower(VL3VisionConfig(**SIZES))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_of_a_whole_model_keeps_the_tower(kind, tmp_path):
    text = {"model_type": "mistral", "hidden_size": 32, "num_attention_heads": 4}
    config = VL3Config(vision_config=CONFIGS[kind], text_config=text, image_token_id=3)
    config.vision_config.vision_feature_layer = -3
    config.save_pretrained(tmp_path)
    again = VL3Config.from_pretrained(tmp_path)
    del CONFIGS[kind].vision_feature_layer
    assert type(again.vision_config) is type(CONFIGS[kind])
    assert again.vision_config.vision_feature_layer == -3
    assert (again.vision_config.image_size, again.text_config.model_type) == (
        CONFIGS[kind].image_size,
        "mistral",
    )


def test_sizes_of_no_encoder_are_refused():
    text = {"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 10}
    config = VL3Config(vision_config=BertConfig(), text_config=text, image_token_id=3)
    with pytest.raises(ValueError, match="vision_config is of a 'bert', no encoder"):
        check_sizes(config)
    config.vision_config = CLIPVisionConfig(**SIZES, image_size=0)
    with pytest.raises(ValueError, match="image_size is a whole number"):
        check_sizes(config)
    CONFIGS["clip"].vision_feature_layer = 7
    try:
        with pytest.raises(ValueError, match=r"one of the 4 layers of the tower.*got 7"):
            VisionTower(CONFIGS["clip"])
    finally:
        del CONFIGS["clip"].vision_feature_layer
