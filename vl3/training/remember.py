"""What the model said before, kept while an adapter learns something new.

A few lines, seen a hundred times, make a model forget what they do not ask about. No old data are
needed against that: the model before training is the same one with its adapter switched off.
On fresh scenes of the toy world, of which there is no end, the adapted model is held to the words
that the model before would have chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.nn import functional as F

from vl3.data.records import Record
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE
from vl3.toyworld.hearing import SOUND_FAMILIES
from vl3.toyworld.questions import FAMILIES
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.collate import attention_mask, collate
from vl3.training.recipe import World
from vl3.training.samples import build
from vl3.training.sources import Scenes

ASKED = dict.fromkeys(FAMILIES, 1.0)
WEIGHT = 16.0  # of the divergence, beside the mean loss of the learned tokens
QUESTIONS = 6  # about one scene, which share its tokens
WORLDS = (
    World(seconds=[0, 0], sprites=[1, 4], digits=0.3, families=ASKED, questions=QUESTIONS),
    World(
        seconds=[3, 10],
        sprites=[1, 3],
        digits=0.3,
        families=ASKED,
        questions=QUESTIONS,
        shaky=0.2,
        noisy=0.05,
        rescaled=0.15,
    ),
)


# What a model that hears is held to as well: clips with sound, and sounds alone.
HEARD_WORLDS = (
    World(
        seconds=[3, 10],
        sprites=[1, 3],
        families=ASKED | dict.fromkeys(SOUND_FAMILIES, 2.0),
        questions=QUESTIONS,
        sound=1.0,
        alone=0.3,
        voices=0.1,
        hum=0.5,
        shaky=0.2,
    ),
)


def scenes(seed: str, count: int, hears: bool = False) -> list[Record]:
    """Pictures and clips, one after the other, with questions; never the same for two seeds.

    hears: whether the model does, and clips with sound are among them
    """
    chosen = WORLDS + HEARD_WORLDS if hears else WORLDS
    worlds = [Scenes("remembered", world, seed) for world in chosen]
    return [worlds[number % len(worlds)][number] for number in range(count)]


class Remember(AuxiliaryLoss):
    """So many fresh scenes a step, on which the model is held to what it said before."""

    name, weight = "remembered", WEIGHT

    def __init__(self, processor: VL3Processor, count: int, seed: str) -> None:
        self.processor, self.count, self.seed = processor, count, seed

    def of_step(self, model, step: int) -> Iterator[Mapping[str, torch.Tensor]]:
        hears = self.processor.settings.sound is not None
        drawn = scenes(f"{self.seed} {step}", self.count, hears)
        for loss in losses(model, self.processor, drawn):
            yield {self.name: loss}


def losses(
    model: VL3ForConditionalGeneration, processor: VL3Processor, records: Sequence[Record]
) -> Iterator[torch.Tensor]:
    """How far the adapted model's choice of words is from that of the model without adapters.

    One share a record, so that only one record's activations are held at a time; their sum is the
    Kullback-Leibler divergence in nats, a mean over all tokens of the answers. Every module that
    trains is an adapter, or the model before is not to be had any more.
    """
    passes = [_inputs(model, processor, record) for record in records]
    said = sum(len(inputs["logits_to_keep"]) for inputs in passes)
    for inputs in passes:
        model.disable_adapters()
        with torch.no_grad():
            before_KV = _words(model, inputs)
        model.enable_adapters()
        yield F.kl_div(_words(model, inputs), before_KV, log_target=True, reduction="sum") / said


def _inputs(model, processor: VL3Processor, record: Record) -> dict:
    """What the model takes to say the words of a record's answers and no others."""
    settings = processor.settings
    sample = build(record, processor, settings.budget_tokens)
    packed = collate([sample], processor.tokenizer.pad_token_id or 0, 3 * settings.patch**2)
    inputs = {name: tensor.to(model.device) for name, tensor in packed.inputs.items()}
    said_L = inputs.pop("labels")[0, 1:] != IGNORE
    kind = model.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), dtype)
    kept = {"logits_to_keep": said_L.nonzero().squeeze(1), "use_cache": False}
    return {**inputs, **kept, "attention_mask": mask}


def _words(model, inputs: dict) -> torch.Tensor:
    """Log-probability of every word at each token of the answers, [K, V] float32."""
    return model(**inputs).logits[0].float().log_softmax(-1)
