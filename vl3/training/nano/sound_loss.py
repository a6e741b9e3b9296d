"""The sound loss: what each token of sound holds, said in the language model's own words.

What the spatial loss is for pictures: behind its connector, a token of sound is compared with the
embeddings of the words for kinds of sound, pitches, loudnesses and digits, so that "beep" in a
question and a beep in a recording point the same way before the first question is asked. Fresh
sounds in each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional as F

from vl3.audio.ear import ear_class
from vl3.families.settings import SoundSettings
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE
from vl3.sound import SoundTokens
from vl3.toyworld.sounds import KINDS, LOUDNESSES, PITCHES, VOICE, Heard, Track
from vl3.toyworld.synthesis import lasts_s, listen
from vl3.toyworld.world import Level, sample_scene
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.nano.spatial_loss import SHARPNESS, word_ids

THINGS = (*KINDS, VOICE, "nothing")
NOTHING = THINGS.index("nothing")
# Word lists as they stand in a question: after a space, digits alone.
WORDS = (
    tuple(f" {thing}" for thing in THINGS),
    tuple(f" {pitch}" for pitch in PITCHES),
    tuple(f" {loudness}" for loudness in LOUDNESSES),
    tuple("0123456789"),
)
LISTS = ("sound", "pitch", "loudness", "spoken digit")
LEAST_OF_TOKEN, LEAST_OF_SOUND = 0.25, 0.5  # that a token holds, or it does not show what it is
LEVEL = Level(
    seconds=(3, 8), sprites=(0, 0), sound=1.0, alone=1.0, sounds=(1, 6), voices=0.3, hum=0.5
)


@dataclass(frozen=True, slots=True)
class Recordings:
    """Sounds as an ear takes them, and what their tokens hold.

    Shapes: bank_PAZ; num_samples_P - of each piece; words_K4 - index of kind, pitch, loudness and
            digit (see LISTS), IGNORE where there is none
    """

    bank_PAZ: torch.Tensor
    num_samples_P: torch.Tensor
    words_K4: torch.Tensor


def token_words(track: Track, tokens: SoundTokens) -> torch.Tensor:
    """What each token of a track holds (see Recordings). Shapes: returns [K, 4]

    The end of a sound that a token hardly holds is not asked for.
    """
    found = [held(track, span_s) for span_s in tokens.spans_s]
    return torch.tensor([_said(heard) for heard in found]).repeat_interleave(tokens.bands, dim=0)


def held(track: Track, span_s: tuple[float, float]) -> Heard | bool:
    """The sound that a token of this time holds; False for silence, True for too little of one."""
    start_s, end_s = span_s
    for heard in track.sounds:
        length_s = lasts_s(heard)
        common_s = min(end_s, heard.start_s + length_s) - max(start_s, heard.start_s)
        if common_s > 0:
            least_s = min(LEAST_OF_TOKEN * (end_s - start_s), LEAST_OF_SOUND * length_s)
            return heard if common_s >= least_s else True
    return False


def _said(heard: Heard | bool) -> tuple[int, int, int, int]:
    if isinstance(heard, bool):
        return IGNORE if heard else NOTHING, IGNORE, IGNORE, IGNORE
    return (
        THINGS.index(heard.kind),
        IGNORE if heard.pitch is None else PITCHES.index(heard.pitch),
        LOUDNESSES.index(heard.loudness),
        IGNORE if heard.digit is None else heard.digit,
    )


def heard_words(
    processor: VL3Processor, setting: str
) -> tuple[SoundSettings, tuple[torch.Tensor, ...]]:
    """How a model hears, and the ids of the words of each list.

    Raises: ValueError that names the setting, where it does not hear or lacks words.
    """
    tokenizer: Any = processor.tokenizer
    missing = [w for w in WORDS[0] if len(tokenizer(w, add_special_tokens=False).input_ids) > 1]
    if processor.settings.sound is None or missing:
        raise ValueError(
            f"{setting} needs a model that hears and has words for it; name an ear under "
            "start.ear and set nano.sound_words, or start from one that has both"
        )
    return processor.settings.sound, tuple(word_ids(tokenizer, WORDS))


def draw_recordings(rng: random.Random, settings: SoundSettings, count: int) -> Recordings:
    """Fresh sounds of the toy world with the truth about each of their tokens."""
    kind = ear_class(settings.ear)
    form = kind.form(settings.ear)
    banks, lengths, words = [], [], []
    for _ in range(count):
        scene = sample_scene(rng, LEVEL)
        sound = listen(scene)
        for piece_S in form.pieces([sound.samples_S]):
            banks.append(kind.bank(settings.ear, piece_S))
            lengths.append(len(piece_S))
        words.append(token_words(cast(Track, scene.track), form.tokens(len(sound))))
    bank_PAZ = torch.nn.utils.rnn.pad_sequence(banks, batch_first=True)
    return Recordings(bank_PAZ, torch.tensor(lengths), torch.cat(words))


def recording_loss(
    model: VL3ForConditionalGeneration,
    recordings: Recordings,
    words: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """Loss of recordings; and of the tokens in which something is heard, which words are right."""
    heard_KE = model.embed_sound(recordings.bank_PAZ, recordings.num_samples_P).float()
    table_VE = cast(torch.Tensor, model.get_input_embeddings().weight).float()
    loss, right = heard_KE.new_zeros(()), {}
    for name, ids, truth_K in zip(LISTS, words, recordings.words_K4.T.to(heard_KE.device)):
        logits_KW = SHARPNESS * heard_KE @ table_VE[ids].T
        known_K = truth_K != IGNORE
        if not known_K.any():
            continue
        loss = loss + F.cross_entropy(logits_KW[known_K], truth_K[known_K])
        judged_K = known_K & (recordings.words_K4[:, 0].to(truth_K.device) != NOTHING)
        hits_K = logits_KW.argmax(dim=-1)[judged_K] == truth_K[judged_K]
        right[f"token {name}"] = hits_K.float().tolist()
    return loss, right


class SoundLoss(AuxiliaryLoss):
    """Fresh sounds in each step, beside the questions, of a model that hears and has the words."""

    name, weight = "sound", 0.2

    def __init__(self, processor: VL3Processor, sounds: int, seed: str) -> None:
        self.settings, self.words = heard_words(processor, "nano.sounds")
        self.sounds, self.seed = sounds, seed

    def of_step(self, model, step: int) -> Iterator[Mapping[str, torch.Tensor]]:
        rng = random.Random(f"{self.seed} {step}")
        recordings = draw_recordings(rng, self.settings, self.sounds)
        with torch.autocast(model.device.type, enabled=False):
            loss, _ = recording_loss(model, recordings, self.words)
        yield {self.name: loss}
