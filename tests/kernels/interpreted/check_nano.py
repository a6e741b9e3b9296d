"""The bundled model from a file to its answer, and a training step, through all fused kernels."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from clips import write_clip
from vl3.kernels.rope2d import fused as rope2d

import vl3
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NANO = Path(__file__).parents[3] / "assets/nano"
FORWARD = {"_across", "_down", "_difffp", "_turn", "_gather"}
LEARNING = FORWARD | {"_scatter", "_stats", "_logit_grads"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("nano") / "clip.mp4"
    write_clip(path, 50, 25, size=(96, 96))
    return str(path)


@pytest.fixture
def launched(monkeypatch) -> Counter:
    """How often each kernel was launched, by name."""
    kind = type(rope2d._turn)  # the interpreter's class, or the compiler's
    counts, run = Counter(), kind.run

    def counted(kernel, *arguments, **options):
        counts[kernel.fn.__name__] += 1
        return run(kernel, *arguments, **options)

    monkeypatch.setattr(kind, "run", counted)
    return counts


def messages(clip, answer: str | None = None) -> list[dict]:
    video = {"type": "video", "video": {"path": clip, "fps": 2, "max_frames": 4}}
    parts = [video, {"type": "text", "text": "What happens in the video?"}]
    answered = [{"role": "assistant", "content": answer}] if answer else []
    return [{"role": "user", "content": parts}, *answered]


def nano() -> VL3ForConditionalGeneration:
    return VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).to(DEVICE)


def loss_and_gradients(model, clip):
    """The loss, with its parts, of a sample that is processed and learned, and all gradients."""
    processor = VL3Processor.from_pretrained(NANO)
    inputs = processor(messages(clip, "A red circle moves right."), return_labels=True)
    model.zero_grad()
    output = model(**{name: part.to(DEVICE) for name, part in inputs.items()}, skip_logits=True)
    output.loss.backward()
    return output, {name: part.grad.clone() for name, part in model.named_parameters()}


def assert_same(expected, found):
    (plain, grads), (fused, fused_grads) = expected, found
    assert torch.allclose(fused.losses_K, plain.losses_K, rtol=1e-5, atol=1e-5)
    assert torch.equal(fused.right_K, plain.right_K)
    for name, grad in grads.items():
        # Rounding of ten layers, against the largest gradient of the same tensor.
        assert (fused_grads[name] - grad).abs().max() <= 1e-4 * grad.abs().max() + 1e-8, name


def test_an_answer_is_the_same_text(clip, launched, monkeypatch):
    texts = {}
    for choice in ("reference", "auto", "triton"):
        assert not launched, "nothing but VL3_KERNELS=triton launches a kernel"
        monkeypatch.setenv("VL3_KERNELS", choice)
        reply = vl3.load(NANO, device=DEVICE).reply(messages(clip), max_new_tokens=24)
        texts[choice] = reply.text
    assert len(texts["reference"]) > 10
    assert texts["triton"] == texts["auto"] == texts["reference"]
    assert set(launched) == FORWARD
    assert launched["_turn"] == 4, "once in every layer of the encoder"


def test_a_training_step_is_the_same(clip, launched, monkeypatch):
    model = nano()
    monkeypatch.setenv("VL3_KERNELS", "reference")
    expected = loss_and_gradients(model, clip)
    assert not launched
    assert 0.1 < expected[0].loss < 20
    monkeypatch.setenv("VL3_KERNELS", "triton")
    assert_same(expected, loss_and_gradients(model, clip))
    assert set(launched) == LEARNING


def test_a_kernel_that_does_nothing_is_seen(clip, monkeypatch):
    model = nano()
    monkeypatch.setenv("VL3_KERNELS", "reference")
    expected = loss_and_gradients(model, clip)
    monkeypatch.setenv("VL3_KERNELS", "triton")
    monkeypatch.setattr(rope2d, "rotate", lambda q, k, runs: (q, k))
    with pytest.raises(AssertionError):
        assert_same(expected, loss_and_gradients(model, clip))
