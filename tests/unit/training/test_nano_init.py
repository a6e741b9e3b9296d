"""An untrained nano: its processor, its first steps."""

import numpy as np
import pytest
import torch

from vl3.training.nano import init
from vl3.values import Clip


@pytest.fixture(scope="module")
def nano():
    return init.untrained(seed=0)


@pytest.mark.parametrize("size", [(336, 336), (720, 1280), (480, 640), (90, 60)])
@pytest.mark.parametrize("frames", [1, 9])
def test_pictures_of_any_size_are_shown_at_the_size_of_the_scenes(nano, size, frames):
    _, processor = nano
    pixels = np.zeros((frames, *size, 3), np.uint8)
    times_s = None if frames == 1 else tuple(float(t) for t in range(frames))
    clip = Clip(frames_TYX3=pixels, times_s=times_s, source="black")
    content = [{"type": clip.kind, clip.kind: clip}, {"type": "text", "text": "What is it?"}]
    inputs = processor(messages=[{"role": "user", "content": content}])
    _, rows, cols = inputs["grid_thw"][0].tolist()
    assert 16 <= rows * cols // 4 <= 24


def test_the_first_steps_change_what_sees_and_leave_the_decoder(nano):
    model, processor = nano
    before = {name: param.clone() for name, param in model.named_parameters()}
    init.train_encoder(model, processor, 3, seed=1)
    changed = {
        name for name, param in model.named_parameters() if not torch.equal(param, before[name])
    }
    assert any(name.startswith("vision.") for name in changed)
    assert any(name.startswith("connector.") for name in changed)
    assert {name for name in changed if name.startswith("language.")} == {
        "language.model.embed_tokens.weight"
    }
