"""What the model said before, kept while an adapter learns something new.

A few lines of somebody's own, seen a hundred times, make a model forget what it is not asked about
meanwhile. No old data are needed against that: the model before training is the same one with its
adapter switched off. On fresh scenes of the toy world, of which there is no end, the adapted model
is held to the words that the model before would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.training.collate import attention_mask, collate
from vl3.training.data.records import Record
from vl3.training.recipe import World
from vl3.training.samples import build
from vl3.training.sources import Scenes
from vl3.training.toy.questions import FAMILIES

ASKED = dict.fromkeys(FAMILIES, 1.0)
QUESTIONS = 6  # about one scene, which share its tokens
WORLDS = (
    World(seconds=[0, 0], sprites=[1, 4], digits=0.3, families=ASKED, questions=QUESTIONS),
    World(seconds=[3, 8], sprites=[1, 3], digits=0.3, families=ASKED, questions=QUESTIONS),
)


def scenes(seed: str, count: int) -> list[Record]:
    """Pictures and clips by turns, with questions about them; never the same for two seeds."""
    worlds = [Scenes("remembered", world, seed) for world in WORLDS]
    return [worlds[number % len(worlds)][number] for number in range(count)]


def loss(
    model: VL3ForConditionalGeneration, processor: VL3Processor, records: Sequence[Record]
) -> torch.Tensor:
    """How far the adapted model's choice of words is from that of the model without adapters.

    The Kullback-Leibler divergence in nats, a mean over all tokens of the answers. Every module
    that trains is an adapter, or the model before is not to be had any more.
    """
    settings = processor.settings
    samples = [build(record, processor, settings.budget_tokens) for record in records]
    inputs = dict(
        collate(samples, processor.tokenizer.pad_token_id or 0, 3 * settings.patch**2).inputs
    )
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    said_BL = inputs.pop("labels")[:, 1:] != -100
    inputs["attention_mask"] = attention_mask(
        inputs.pop("sample_BL"), inputs.pop("branch_BL"), torch.float32
    )
    columns = said_BL.any(0)
    inputs |= {"use_cache": False, "logits_to_keep": columns.nonzero().squeeze(1)}
    said_BC = said_BL[:, columns]

    model.disable_adapters()
    with torch.no_grad():
        before_KV = model(**inputs).logits[said_BC].float()
    model.enable_adapters()
    now_KV = model(**inputs).logits[said_BC].float()
    return F.kl_div(
        now_KV.log_softmax(-1), before_KV.log_softmax(-1), log_target=True, reduction="batchmean"
    )
