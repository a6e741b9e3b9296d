"""A track of an hour takes no more memory than one of minutes, but for its features."""

import subprocess
import sys
import wave

import numpy as np
import pytest

BASE = """
import sys
import numpy as np, resource, torch
from vl3.audio.ear import ear_class
from vl3.config import BEATsConfig, WhisperEarConfig
torch.set_num_threads(1)
config = BEATsConfig() if sys.argv[1] == "beats" else WhisperEarConfig(d_model=768,
    encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072)
ear = ear_class(config)(config).eval()
ear.hear([np.zeros(16_000, np.float32)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ear.hear([np.zeros(16_000, np.float32)] * 30)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""

HEAR = """
import resource, sys
import torch
from vl3 import audio
from vl3.audio.ear import ear_class
from vl3.config import BEATsConfig, WhisperEarConfig
torch.set_num_threads(1)
sizes = dict(encoder_layers=1, encoder_attention_heads=2)
config = (
    WhisperEarConfig(d_model=16, encoder_ffn_dim=16, max_source_positions=500, **sizes)
    if sys.argv[2] == "whisper"
    else BEATsConfig(
        embed_dim=16, encoder_embed_dim=32, encoder_ffn_embed_dim=16, piece_steps=30, **sizes
    )
)
ear = ear_class(config)(config).eval()
ear.hear(audio.blocks(sys.argv[1], end=60))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = ear.hear(audio.blocks(sys.argv[1]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decoders = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(len(found), (after - before) / 1024, decoders / 1024)
"""


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """An hour of stereo at 8 kHz: 115 MB of file, 230 MB of samples at 16 kHz."""
    path = tmp_path_factory.mktemp("hour") / "hour.wav"
    minute = np.random.default_rng(0).integers(-3000, 3000, (60 * 8_000, 2), dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 8_000, 0, "NONE", ""))
        for _ in range(60):
            file.writeframes(minute.tobytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("ear", "tokens"), [("whisper", 45_000), ("beats", 180_000)])
def test_an_hour_is_heard_in_bounded_memory(hour, ear, tokens):
    command = [sys.executable, "-c", HEAR, str(hour), ear]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, grown_mib, _ = map(float, done.stdout.split())
    assert found == pytest.approx(tokens, abs=8)
    features_mib = found * 32 * 4 / 2**20
    assert grown_mib < 60 + 2 * features_mib  # 230 MB of samples would not fit


@pytest.mark.slow
@pytest.mark.parametrize("ear", ["beats", "whisper"])
def test_30_s_in_an_ear_of_released_size_take_less_than_200_mb(ear):
    """BEATs, and Whisper small; the position bias of all heads of BEATs alone would be 107 MB."""
    done = subprocess.run(
        [sys.executable, "-c", BASE, ear], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) * 2**20 < 200e6
