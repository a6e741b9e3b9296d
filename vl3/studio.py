"""The application without a user interface: open a video, ask about it, keep what was computed.

The page, the notebooks, the terminal and scripts all go through here, so the same clip, question
and settings give the same text everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import cached_property
from typing import cast

import torch

from vl3.arguments import choice, instance, number, shown, switch, whole
from vl3.families.settings import ProcessorSettings
from vl3.inference import memory as memories
from vl3.inference import replay
from vl3.inference import reply as replies
from vl3.inference.asking import Request, TooLong, request_of
from vl3.inference.disk_cache import FeatureCache, features_dir
from vl3.inference.encoded import EncodedCache
from vl3.inference.encoded_video import EncodedVideo
from vl3.inference.engine import Engine
from vl3.inference.generation import PrefixCache
from vl3.inference.heard import EncodedSound, plan_of_sound
from vl3.inference.memory import SMALL_PLAN, estimate
from vl3.inference.opening import OnStage, Opening
from vl3.inference.options import OPTIONS, READING, check_names, chosen, conversation, part_of
from vl3.inference.reply import OutOfMemory
from vl3.inference.scoring import Score, score
from vl3.interpret import Attention, Tracer
from vl3.messages.media import MediaPart, find_media
from vl3.messages.sounds import SoundPart
from vl3.settings import Decoding
from vl3.values import Plan, Progress, PromptSegment, Reply, SoundPlan
from vl3.weights.hub import resolve
from vl3.weights.load import load as load_weights
from vl3.weights.number_format import LARGE

__all__ = ["EncodedVideo", "OutOfMemory", "Studio", "TooLong", "estimate", "load"]

CACHE_BYTES = 1 << 30  # encoded clips that one studio keeps; the oldest go first


class Studio:
    """One session of an engine: its encoded clips, the key/value prefix of its last prompt, and
    its looks into answers.

    Sessions of one engine share the weights and nothing else. They compute by turns, a piece of a
    clip, a piece of a prompt or a token at a time, and an answer that is not read on holds up
    nobody.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        cache_bytes: int = CACHE_BYTES,
        features: FeatureCache | None = None,
        fitted: memories.MemoryPlan | None = None,
    ) -> None:
        instance("engine", engine, Engine, "vl3.inference.engine.Engine, as vl3.load makes one")
        disk = "vl3.inference.disk_cache.FeatureCache, or None"
        instance("features", features, FeatureCache | None, disk)
        plan = "a vl3.inference.memory.MemoryPlan, or None"
        instance("fitted", fitted, memories.MemoryPlan | None, plan)
        cache_bytes = whole("cache_bytes", cache_bytes, low=0)
        self.engine, self.model, self.processor = engine, engine.model, engine.processor
        self._fitted = fitted
        self._encoded = EncodedCache(engine, cache_bytes, features)
        self._prefix: PrefixCache | None = PrefixCache()
        self._tracer = Tracer(engine.model)

    def new_session(self, share_encoded: bool = False) -> Studio:
        """Another session on the same weights.

        share_encoded: with this one's encoded clips, and it needs no release; else with empty
        caches. Nothing that it answers shows here.
        """
        kept = self._encoded
        other = Studio(
            self.engine, cache_bytes=kept.cache_bytes, features=kept.files, fitted=self._fitted
        )
        if switch("share_encoded", share_encoded):
            other._encoded = kept
        return other

    def release(self) -> None:
        """Forgets every encoded clip and every look at an answer, and frees their memory.

        An answer in progress goes on with what it has, and leaves nothing behind.
        """
        kept = self._encoded
        self._encoded = EncodedCache(self.engine, kept.cache_bytes, kept.files)
        self._prefix = PrefixCache()
        self._tracer = Tracer(self.model)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def cached_bytes(self) -> int:
        """Memory held by encoded clips, the last prompt's key/value cache and looks at answers."""
        prefix = self._prefix.nbytes if self._prefix else 0
        return self._encoded.nbytes + prefix + self._tracer.nbytes

    @property
    def settings(self) -> ProcessorSettings:
        """The checkpoint's, with less for a real size on a CPU or for the memory load was given."""
        settings = self.processor.settings
        if self.model.device.type == "cpu" and self.model.num_parameters() >= LARGE:
            most = settings.budget_tokens if settings.square else SMALL_PLAN["budget_tokens"]
            settings = replace(settings, **SMALL_PLAN | {"budget_tokens": most})
        if self._fitted:
            most = min(settings.budget_tokens, self._fitted.budget_tokens)
            settings = replace(settings, budget_tokens=most)
        return settings

    @cached_property
    def answers_at_once(self) -> int:
        """How many answers about long videos have room together, by what is free at first."""
        quantized, device = self.engine.loaded.quantized, self.model.device
        plan = self._fitted or memories.fit(
            self.model.config,
            device=device.type,
            itemsize=self.model.dtype.itemsize,
            budget_tokens=self.settings.budget_tokens,
            limit_bytes=float("inf"),
            kinds=(quantized.kind if quantized else None,),
            sound_tokens=sound.most_tokens if (sound := self.settings.sound) else 0,
        )
        return memories.answers_at_once(plan, device)

    @property
    def card(self) -> dict:
        """What is loaded, in plain values: name, size, format, device, limits, defaults."""
        settings, loaded = self.settings, self.engine.loaded
        notes = [str(note) for note in (loaded.quantized, self._fitted) if note]
        return {
            "name": loaded.name,
            "path": loaded.path,
            "parameters": self.model.num_parameters(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "quantize": loaded.quantized.kind if loaded.quantized else None,
            "adapter": loaded.adapter,
            "is_nano": loaded.is_nano,
            "hears": self.model.ear is not None,
            "context_tokens": self.model.config.text_config.max_position_embeddings,
            "defaults": {
                "fps": settings.fps,
                "max_frames": settings.max_frames,
                "budget_tokens": settings.budget_tokens,
                "max_new_tokens": Decoding().max_new_tokens,
            },
            "unpruned": settings.unpruned,
            "unrotated": settings.unrotated,
            "weights_bytes": sum(p.nbytes for p in self.model.parameters()),
            "note": "; ".join(notes),
        }

    def plan(
        self,
        path,
        *,
        fps=None,
        max_frames=None,
        start=None,
        end=None,
        budget_tokens=None,
        sound: bool | None = None,
    ) -> Plan | SoundPlan:
        """What a file will cost, from its container alone; open then keeps to it.

        sound: as of stream. A sound is decoded once, to be measured, where the model has an ear.
        Raises: vl3.video.VideoError or ValueError in one sentence.
        """
        medium = self._medium(path, fps=fps, max_frames=max_frames, start=start, end=end)
        settings = self._chosen(budget_tokens, sound=sound)
        if isinstance(medium, SoundPart):
            return plan_of_sound(medium, settings)
        return self._encoded.plan(medium, settings)

    def open(
        self,
        path,
        *,
        fps=None,
        max_frames=None,
        start=None,
        end=None,
        budget_tokens=None,
        sound: bool | None = None,
        on_stage: OnStage | None = None,
        reuse: bool = True,
    ) -> EncodedVideo | EncodedSound:
        """A video, image or sound, decoded and encoded; at once if it was opened before.

        path: a file, a Clip, a PIL image, an array or a tensor; for a model with an ear also a file
        of sound, a Sound or (samples, rate). Times in seconds of its own clock.
        sound: as of stream.
        budget_tokens bounds the visual tokens before pruning; on_stage is told of progress.
        reuse: as of stream.
        Raises: vl3.video.VideoError or ValueError in one sentence.
        """
        medium = self._medium(path, fps=fps, max_frames=max_frames, start=start, end=end)
        if on_stage is not None and not callable(on_stage):
            raise ValueError(f"on_stage is a function of one Stage - got {shown(on_stage)}")
        opening = Opening(
            self._encoded.now(), switch("reuse", reuse), on_stage or (lambda stage: None)
        )
        settings = chosen(self.settings, budget_tokens, sound=sound)
        if isinstance(medium, SoundPart):
            return self._encoded.open_sound(medium, settings, opening)[0]
        return self._encoded.open(medium, settings, opening)[0]

    def ask(self, video, question: str, *, system=None, history=(), **settings) -> Iterator[str]:
        """The answer about one or several opened videos (or files), piece by piece.

        history: earlier messages; further settings are those of stream.
        An opened video is seen as it is: with its mask, and with its features as long as nobody
        asks for others. What dataclasses.replace(video, features_MD=..., keep=...) put in, or an
        edit in place, is what the answer is about.
        """
        stream = self.stream(
            conversation(video, question, system, history, self._hears), **settings
        )
        return (piece for piece in stream if isinstance(piece, str))

    def score(
        self, video, question: str, answer: str, *, system=None, history=(), **settings
    ) -> Score:
        """How likely the model is to give this answer, token by token, in natural logarithms.

        The answer is read after the question as training reads it, none is generated. Arguments
        are those of ask, settings those of stream without its decoding. What may be answered from
        what was kept follows the same rule as there: never for other features, masks or weights.
        Raises: as stream; vl3.inference.engine.Stopped where stop was set.
        """
        given = {"system": system, "history": history, **settings}
        return self.score_choices(video, question, [answer], **given)[0]

    def score_choices(
        self, video, question: str, choices: Sequence[str], *, system=None, history=(), **settings
    ) -> tuple[Score, ...]:
        """A score for each answer, in their order; the question is read once for all of them.

        max(scores, key=lambda score: score.mean) is the likeliest one, whatever their lengths.
        """
        instance("choices", choices, list | tuple, "a list of answers")
        for text in choices:
            instance("an answer", text, str, "a text")
        check_names(settings, (), OPTIONS, what="a score")
        messages = conversation(video, question, system, history, self._hears)
        request = request_of(self.settings, messages, Decoding(), **settings)
        with self._borrowed_prefix() as prefix:
            return score(self._encoded, prefix, request, choices)

    def reply(self, messages: Sequence[dict], **settings) -> Reply:
        """The whole answer to a conversation; takes and raises what stream does."""
        *_, last = self.stream(messages, **settings)
        return cast(Reply, last)

    def stream(
        self,
        messages: Sequence[dict],
        *,
        budget_tokens: int | None = None,
        prune: dict | str | None = "model",
        sound: bool | None = None,
        picture: bool = True,
        stop: threading.Event | None = None,
        reuse: bool = True,
        **decoding,
    ) -> Iterator[Progress | str | Reply]:
        """Stages of the work, then pieces of text, last the Reply.

        messages: HF style; media parts as of vl3.messages.media.find_media, or an opened video.
        decoding: max_new_tokens, temperature, top_p, repetition_penalty, seed
        (vl3.inference.generation.Decoding)
        prune: "model" for the checkpoint's setting, None for off, or a dict of mode, threshold,
               min_tokens and keep. An opened Video keeps its mask under "model", is pruned anew
               under the others, and refuses those where the mask is one that a caller put in.
        sound: False answers as if nothing could be heard; None as the model's settings say.
        picture: False answers as if nothing could be seen: grey frames under the same mask.
        reuse: False computes everything anew: no encoded clip, key or value that is kept is used.
               Nor is it where the model is no longer the one that made it: an edited weight, an
               adapter that was added, merged, switched off. And nothing is kept while code of a
               caller takes part: hooks on any module, replaced methods (vl3.inference.fingerprint).
        Every medium has the token budget for itself, so that adding one never changes the others
        (the official processor shares one budget over a prompt; with one medium both agree).
        Setting stop, or closing the iterator, ends the computation at the model's next layer.
        Raises: ValueError, vl3.video.VideoError, TooLong, OutOfMemory in one sentence.
        """
        check_names(decoding, [each.name for each in fields(Decoding)], OPTIONS)
        request = request_of(
            self.settings,
            messages,
            Decoding(**decoding),
            budget_tokens=budget_tokens,
            prune=prune,
            sound=sound,
            picture=picture,
            stop=stop,
            reuse=reuse,
        )
        return self._answered(request)

    def without(self, what: str, messages: Sequence[dict], **settings) -> Reply:
        """The answer to the same conversation without its "sound" or without its "picture".

        Takes and raises what stream does; vl3.viz.compare.differences marks what changed.
        """
        choice("what", what, ("sound", "picture"))
        return self.reply(messages, **settings | {what: False})

    def attention(
        self,
        reply: Reply,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
        source: str = "language",
        reuse: bool = True,
    ) -> Attention:
        """Where words of a reply looked, in the prompt and in the frames.

        layers, heads: numbers from 0, each kept apart; None for the mean over all of them
        tokens: numbers of generated tokens, so that a repeated word is two; None for all of them.
                Token t has the row that predicts it.
        source: "language"  attention of the language model
                "rollout"   the same followed down through all layers (arXiv 2005.00928)
                "relevancy" attention x gradient of one token (arXiv 2103.15679); small prompts only
                "vision"    attention inside a frame in the vision encoder; tokens are visual
                            tokens, by their slot
        reuse: False replays even what was replayed before
        The reply is replayed for it, once for each new layer; answers do not change by it. Its
        clips must still be in this studio's memory. Attention shows where information was read,
        not why the answer was given.
        It is the model as it is now that reads the reply's words again: after weights were edited,
        or with hooks, these are the maps of the model so changed, and Attention.notes says so.
        Raises: ValueError in one sentence.
        """
        scene = replay.replay_input(self._encoded, reply)
        if not switch("reuse", reuse):
            scene = replace(scene, is_lasting=False)
        with self.engine.turn():
            return self._tracer.look(scene, layers, heads, tokens, source)

    def videos(self, reply: Reply) -> tuple[EncodedVideo, ...]:
        """The clips and images that a reply saw, in its order, each with the mask that it used.

        Raises: ValueError in one sentence when one is no longer in this studio's memory.
        """
        return replay.videos(self._encoded, reply)

    def pieces(self, reply: Reply) -> tuple[PromptSegment, ...]:
        """The prompt of a reply as the model read it: words, template tokens, slots of frames."""
        return replay.pieces(self._encoded, reply)

    def _answered(self, request: Request) -> Generator[Progress | str | Reply]:
        with (
            self._borrowed_prefix() as prefix,
            closing(replies.generate(self._encoded, prefix, request)) as events,
        ):
            for event in events:
                if isinstance(event, Reply):
                    reply = event
                else:
                    yield event
        yield reply  # when all is kept, so that the caller may look into it at once

    @contextmanager
    def _borrowed_prefix(self) -> Iterator[PrefixCache]:
        """That of this session, or a fresh one while another answer has it."""
        encoded, kept = self._encoded, self._prefix
        prefix, self._prefix = kept or PrefixCache(), None
        try:
            yield prefix
        finally:
            if self._encoded is encoded and self._prefix is None:  # not released in between
                self._prefix = prefix

    def _medium(self, source, **options) -> MediaPart | SoundPart:
        """The medium that a message with this source and these options would hold."""
        given = {
            key: (whole if key == "max_frames" else number)(key, value, **READING[key])
            for key, value in options.items()
            if value is not None
        }
        part = part_of(source, self._hears)
        if part["type"] == "audio":
            part |= given
        elif given:
            part["video"] = {"path": source, **given}
        (medium,) = find_media([{"role": "user", "content": [part]}])
        return medium

    @property
    def _hears(self) -> bool:
        return self.settings.sound is not None

    def _chosen(self, budget_tokens=None, prune="model", sound=None) -> ProcessorSettings:
        return chosen(self.settings, budget_tokens, prune, sound)


def load(
    model=None,
    *,
    device="auto",
    dtype="auto",
    quantize=None,
    adapter=None,
    offline=False,
    memory: str | None = None,
    features_gb: float = 0.0,
) -> Studio:
    """A studio for a checkpoint folder or hub id; without one, for the bundled nano model.

    quantize: None, "nf4", "int8", or "nf4+int8" for the smallest; adapter: a peft folder; offline:
    never touch the network.
    memory: what the model may take of its device, like "8GB", or "auto" for what is free. Where
    quantize is None it is quantized as little as will do, and where that is not enough videos get
    fewer visual tokens.
    features_gb: so much of encoded clips is kept on disk, in features_dir(), and not encoded again
    when they are opened another day; 0 keeps none.
    Raises: vl3.families.layouts.LayoutError, ValueError or ImportError in one sentence.
    """
    features_gb = number("features_gb", features_gb, low=0, unit="gigabytes")
    offline, fitted, files = switch("offline", offline), None, None
    if features_gb > 0:
        files = FeatureCache(features_dir(), int(features_gb * 1e9))
        files.check()
    if memory is not None:
        folder = resolve(model, offline=offline)
        fitted = estimate(folder, device=device, dtype=dtype, quantize=quantize, memory=memory)
        quantize = fitted.quantize
    loaded = load_weights(
        model, device=device, dtype=dtype, quantize=quantize, adapter=adapter, offline=offline
    )
    cache_bytes = min(CACHE_BYTES, fitted.spare_bytes) if fitted else CACHE_BYTES
    return Studio(Engine(loaded), cache_bytes=cast(int, cache_bytes), features=files, fitted=fitted)
