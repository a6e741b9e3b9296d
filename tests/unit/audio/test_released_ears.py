"""Ears from files as they are released: BEATs' own, and a folder of Whisper."""

import json

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from vl3.audio.beats import BEATs, repeated
from vl3.audio.released import load_ear
from vl3.config import BEATsConfig

SIZES = {
    "input_patch_size": 16,
    "embed_dim": 16,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
}
ARRANGEMENT = {"deep_norm": True, "layer_norm_first": False, "gru_rel_pos": True}
SAMPLES = np.random.default_rng(0).standard_normal(9_000).astype(np.float32)


def beats_file(path, cfg=ARRANGEMENT, **changes):
    """A BEATs file with random weights, and the ear that it holds."""
    ear = BEATs(BEATsConfig(**SIZES, finetuned_model=True, predictor_class=7)).eval()
    tensors = dict(ear.state_dict())
    first = tensors["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    tensors |= dict.fromkeys(repeated(3), first)
    said = SIZES | cfg | {"finetuned_model": True, "predictor_class": 7}
    torch.save({"cfg": said, "model": tensors | changes}, path)
    return ear


def test_beats_of_its_release(tmp_path):
    ear = beats_file(tmp_path / "beats.pt")
    again = load_ear(tmp_path / "beats.pt", pool_bands=8)
    assert again.config.pool_bands == 8
    plain = load_ear(tmp_path / "beats.pt")
    assert torch.equal(plain.hear([SAMPLES]), ear.hear([SAMPLES]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_norm.bias": torch.zeros(17)}, r"layer_norm\.bias is \(17,\) and not \(16,\)"),
        ({"extra": torch.zeros(1)}, "extra is unknown"),
        ({"cfg": {"deep_norm": False}}, r"another arrangement is not read: \{'deep_norm': False\}"),
    ],
)
def test_a_beats_that_does_not_fit_is_refused(tmp_path, changes, said):
    cfg = changes.pop("cfg", ARRANGEMENT)
    beats_file(tmp_path / "beats.pt", cfg, **changes)
    with pytest.raises(ValueError, match=said):
        load_ear(tmp_path / "beats.pt")


def test_a_file_that_is_no_beats_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"^a\.pt is no BEATs file: it has no entries cfg and mod"):
        load_ear(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"^b\.pt is no BEATs file"):
        load_ear(tmp_path / "b.pt")
    torch.save({"cfg": {}, "model": ARRANGEMENT.keys}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"^c\.pt is no BEATs file"):
        load_ear(tmp_path / "c.pt")  # it holds more than tensors
    with pytest.raises(ValueError, match="there is no ear at d"):
        load_ear(tmp_path / "d")


@pytest.fixture
def whisper(tmp_path):
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4}
    sizes |= {"encoder_ffn_dim": 48, "decoder_layers": 1, "decoder_attention_heads": 4}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, decoder_ffn_dim=16))
    return model


@pytest.mark.parametrize("shards", ["5GB", "200KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_whisper_of_a_folder_without_its_decoder(tmp_path, whisper, shards, dtype):
    whisper.to(dtype).save_pretrained(tmp_path / "w", max_shard_size=shards)
    ear = load_ear(tmp_path / "w", pool=5)
    assert ear.form(ear.config).tokens_per_s == 10
    assert not any("decoder" in name for name in ear.state_dict())
    for name, tensor in whisper.model.encoder.state_dict().items():
        assert torch.equal(ear.encoder.state_dict()[name], tensor.float())


def test_a_whisper_that_lacks_something_is_refused(tmp_path, whisper):
    whisper.save_pretrained(tmp_path / "w")
    config = json.loads((tmp_path / "w/config.json").read_text())
    (tmp_path / "w/config.json").write_text(json.dumps(config | {"encoder_layers": 3}))
    with pytest.raises(
        ValueError, match=r"^w does not fit its ear: encoder\.layers\.2\..* is miss"
    ):
        load_ear(tmp_path / "w")
    (tmp_path / "w/config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    with pytest.raises(ValueError, match=r"^w is 'qwen2' and not a whisper model"):
        load_ear(tmp_path / "w")
