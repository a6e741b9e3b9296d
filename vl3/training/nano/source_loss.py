"""The source loss: which thing makes each sound of a clip, said at the tokens of the sound.

A question which shape makes the bell, or whether the sound fits, needs what is seen in the second
of a sound. From answers alone nano did not begin to find it in 500 steps. So the states of tokens
of sound, some layers up, are compared with the embeddings of the words for colours and shapes:
those of the sprite with an event in that second, or "nothing". They are said in a second sense of
the words, their embeddings with the halves exchanged (vl3.training.nano.temporal_loss); the first
says what is heard. Fresh clips in each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch.nn import functional as F

from vl3.audio.ear import ear_class
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE
from vl3.sound import SoundTokens
from vl3.toyworld.draw import Film, shoot
from vl3.toyworld.hearing import HEARING_WORDINGS, transcript
from vl3.toyworld.questions import QA
from vl3.toyworld.sounds import Track, makers
from vl3.toyworld.world import COLOURS, SHAPES, Level, Scene, Sprite, sample_scene
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.collate import attention_mask, collate
from vl3.training.nano.sound_loss import heard_words, held
from vl3.training.nano.spatial_loss import word_ids
from vl3.training.samples import Sample, build
from vl3.training.sources import scene_record

LAYERS = 4  # of the language model, after which a token should know; the others use it
LEVEL = Level(seconds=(3, 8), sprites=(1, 3), sound=1.0, sounds=(1, 3), voices=0.1, hum=0.5)
NOTHING = " nothing"
WORDS = (
    (*(f" {colour}" for colour in COLOURS), NOTHING),
    (*(f" {shape}" for shape in SHAPES), NOTHING),
)
LISTS = ("source colour", "source shape")


def token_sources(scene: Scene, tokens: SoundTokens) -> torch.Tensor:
    """Which word of each list names what makes the sound of a token; IGNORE without a sound.

    Shapes: returns [K, 2]
    """
    track, colours = cast(Track, scene.track), tuple(COLOURS)
    words: dict[Sprite | None, tuple[int, int]] = {None: (len(COLOURS), len(SHAPES))}
    for sprite in scene.sprites:
        words[sprite] = (colours.index(sprite.colour), SHAPES.index(sprite.shape))
    made = dict(zip(track.sounds, (words[maker] for maker in makers(scene)), strict=True))
    found = [held(track, span_s) for span_s in tokens.spans_s]
    unknown = (IGNORE, IGNORE)
    rows = [unknown if isinstance(heard, bool) else made[heard] for heard in found]
    return torch.tensor(rows).repeat_interleave(tokens.bands, dim=0)


class SourceLoss(AuxiliaryLoss):
    """Fresh clips with sound in each step, of a model that hears and has the words."""

    name, weight = "source", 0.3

    def __init__(self, processor: VL3Processor, clips: int, seed: str) -> None:
        settings, _ = heard_words(processor, "nano.sources")
        self.form = ear_class(settings.ear).form(settings.ear)
        self.processor, self.clips, self.seed = processor, clips, seed
        self.words = word_ids(processor.tokenizer, WORDS)

    def of_step(self, model, step: int) -> Iterator[Mapping[str, torch.Tensor]]:
        rng = random.Random(f"{self.seed} {step}")
        drawn = [self.draw(rng) for _ in range(self.clips)]
        with torch.autocast(model.device.type, enabled=False):
            yield self.losses(model, *zip(*drawn, strict=True))

    def draw(self, rng: random.Random) -> tuple[Sample, torch.Tensor]:
        """A fresh clip with sound, and what makes the sound of each of its tokens."""
        scene = sample_scene(rng, LEVEL)
        film, track = cast(Film, shoot(scene, rng, LEVEL)), cast(Track, scene.track)
        asked = QA("hearing", HEARING_WORDINGS[0], transcript(track))
        record = scene_record(str(scene.seed), self.name, film, [[asked]])
        sample = build(record, self.processor, self.processor.settings.budget_tokens)
        return sample, token_sources(scene, self.form.tokens(len(film.sound)))

    def losses(
        self, model: VL3ForConditionalGeneration, samples: tuple[Sample, ...], truths: tuple
    ) -> dict[str, torch.Tensor]:
        """Mean cross-entropy of each list over the tokens in which something is heard."""
        tokenizer: Any = self.processor.tokenizer
        patch_values = 3 * self.processor.settings.patch**2
        inputs = dict(collate(samples, tokenizer.pad_token_id, patch_values).inputs)
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), model.dtype)
        output = model(
            **inputs, attention_mask=mask, use_cache=False, skip_logits=True,
            output_hidden_states=True,
        )  # fmt: skip
        heard_BL = inputs["input_ids"] == self.processor.audio_token_id
        states_KE = cast(tuple, output.hidden_states)[LAYERS][heard_BL].float()
        states_KE = states_KE * states_KE.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()
        table_VE = cast(torch.Tensor, model.get_input_embeddings().weight).float()
        found = {}
        for name, ids, truth_K in zip(LISTS, self.words, torch.cat(truths).T.to(model.device)):
            known_K = truth_K != IGNORE
            own_WE = table_VE[ids]
            logits_KW = states_KE[known_K] @ own_WE.roll(own_WE.shape[1] // 2, dims=1).T
            loss = F.cross_entropy(logits_KW, truth_K[known_K], reduction="sum")
            found[name] = loss / max(1, len(logits_KW))
        return found
