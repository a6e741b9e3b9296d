"""A training run in numbers: what starts it, what trains at which rate, on which data.

A recipe is a YAML file with these names (train_cli reads it). What is not named under `rates` is
frozen. Defaults are those of the official scripts; the shipped recipes write down what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from types import UnionType
from typing import Literal, get_args, get_origin, get_type_hints

MODULES = ("vision", "connector", "language")


@dataclass(kw_only=True)
class Start:
    """Where the weights come from: one whole checkpoint, or an encoder and a language model.

    model: folder or hub id of a whole model in any layout; a run folder continues its last weights
    vision: plain SigLIP, a SigLIP-NaViT, or a whole model whose encoder is taken
    language: a Qwen2.5; the connector between the two is new
    nano: an untrained nano with a tokenizer made for the toy world
    lessons: lessons in sight before the first step, in place of a pre-trained encoder
    quantize: 4-bit or 8-bit linears in the (then frozen) language model
    """

    model: str | None = None
    vision: str | None = None
    language: str | None = None
    nano: bool = False
    lessons: int = 0
    quantize: Literal["nf4", "int8"] | None = None


@dataclass(kw_only=True)
class Rates:
    """Learning rate of each module; without one the module is frozen.

    Source: official train.py, where a learning rate left out freezes.
    """

    vision: float | None = None
    connector: float | None = None
    language: float | None = None
    adapter: float | None = None


@dataclass(kw_only=True)
class Adapter:
    """Low-rank adapters in the linear layers of some modules.

    on: modules that get adapters, of vision, connector, language
    """

    kind: Literal["lora", "dora"] = "lora"
    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    on: list[str] = field(default_factory=lambda: ["language"])


@dataclass(kw_only=True)
class World:
    """Scenes of the toy world drawn as they are needed, never the same one twice.

    seconds: shortest and longest clip, [0, 0] gives images; sprites: fewest and most shapes
    families: how often each family of questions is asked, relative to the others
    questions: questions about one scene, which share its visual tokens
    follow: share of questions that follow another one in the same conversation
    digits, changing, shaky, noisy, rescaled: shares of scenes, see vl3.training.toy.world.Level
    """

    seconds: list[int] = field(default_factory=lambda: [0, 0])
    sprites: list[int] = field(default_factory=lambda: [1, 3])
    families: dict[str, float] = field(default_factory=dict)
    questions: int = 8
    follow: float = 0.0
    digits: float = 0.0
    changing: float = 0.5
    shaky: float = 0.0
    noisy: float = 0.0
    rescaled: float = 0.0
    sizes_px: list[list[int]] = field(default_factory=lambda: [[112, 112]])


@dataclass(kw_only=True)
class Source:
    """One data set of the mix.

    path: JSONL or JSON file, WebDataset shards (*.tar), a folder or hf://name of a Hugging Face
          data set; formats are told apart by their keys unless `format` names one
    world: instead of a path, scenes of the toy world
    samples: how many an epoch takes; more than there are repeats, fewer takes others each epoch
    sets: names of the paper's data sets that belong here, for the reader
    """

    name: str
    path: str | None = None
    world: World | None = None
    format: str | None = None
    media_root: str | None = None
    samples: int | None = None
    sets: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Media:
    """How media become visual tokens during training; None leaves the checkpoint's own setting.

    cache_gb: decoded frames kept on disk between epochs, in the folder of the run; 0 keeps none
    """

    fps: float | None = None
    max_frames: int | None = None
    image_merge: int | None = None
    video_merge: int | None = None
    prune: bool | None = None
    visual_tokens: int = 10240
    cache_gb: float = 0.0


@dataclass(kw_only=True)
class Batch:
    """How samples become steps.

    samples: of one optimizer step, over all processes
    tokens, patches: most language tokens and vision patches of one forward pass; a step is cut into
          as many passes as these need
    max_tokens: longest sample; longer ones are quarantined
    """

    samples: int = 128
    tokens: int = 16384
    patches: int = 65536
    max_tokens: int = 16384


@dataclass(kw_only=True)
class Optim:
    """The optimizer and its schedule.

    kind: muon takes orthogonalised momentum for the matrices (rates.* times muon_factor) and adamw
          for the rest
    warmup: share of the steps; floor: share of the rate that is left at the end
    """

    kind: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    muon_factor: float = 5.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0


@dataclass(kw_only=True)
class Evaluate:
    """Held-out questions, answered with generated text during training."""

    every: int | None = None
    sources: list[Source] = field(default_factory=list)
    samples: int = 32
    max_new_tokens: int = 64


@dataclass(kw_only=True)
class Recipe:
    """One training run.

    lessons: images of the toy world per step on which the encoder goes on learning to see, for nano
    story: lessons in time beside the questions, for nano (vl3.training.toy.story)
    """

    name: str
    out: str = "runs/{name}"
    start: Start = field(default_factory=Start)
    rates: Rates = field(default_factory=Rates)
    adapter: Adapter | None = None
    data: list[Source] = field(default_factory=list)
    media: Media = field(default_factory=Media)
    batch: Batch = field(default_factory=Batch)
    optim: Optim = field(default_factory=Optim)
    evaluate: Evaluate = field(default_factory=Evaluate)
    epochs: float = 1.0
    steps: int | None = None
    lessons: int = 0
    story: bool = False
    seed: int = 42
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpointing: list[str] = field(default_factory=lambda: ["vision", "language"])
    workers: int = 2
    save_every: int = 1000
    keep: int = 2
    log_every: int = 10
    max_bad: float = 0.001
    report_to: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check(self)


def check(recipe: Recipe) -> None:
    """Raises ValueError, naming the knob, where parts of a recipe contradict each other."""
    starts = [recipe.start.model, recipe.start.nano, recipe.start.vision]
    if sum(map(bool, starts)) != 1 or bool(recipe.start.vision) != bool(recipe.start.language):
        raise ValueError("start names exactly one of: model; vision and language; nano")
    rates = {name: getattr(recipe.rates, name) for name in (*MODULES, "adapter")}
    if not any(rates.values()):
        raise ValueError("nothing trains: give a learning rate under rates, e.g. rates.language")
    if (rates["adapter"] is None) != (recipe.adapter is None):
        raise ValueError("rates.adapter and adapter go together: name both or neither")
    if recipe.adapter:
        if not recipe.start.model:
            made_of = "start.nano" if recipe.start.nano else "start.vision and start.language"
            raise ValueError(
                f"an adapter needs a base that can be loaded again, and what {made_of} makes is in "
                "this run only; train it without adapter first (rates.connector is enough), then "
                "give that run as start.model"
            )
        unknown = set(recipe.adapter.on) - set(MODULES)
        if unknown or not recipe.adapter.on:
            raise ValueError(
                f"adapter.on lists some of {', '.join(MODULES)} - got {recipe.adapter.on}"
            )
        both = [name for name in recipe.adapter.on if rates[name]]
        if both:
            raise ValueError(
                f"{both[0]} would train whole and through adapters; "
                f"drop rates.{both[0]} or take it out of adapter.on"
            )
    if recipe.start.quantize and rates["language"]:
        raise ValueError("a quantized language model cannot train whole; drop rates.language")
    for source in (*recipe.data, *recipe.evaluate.sources):
        if (source.path is None) == (source.world is None):
            raise ValueError(f"data set {source.name!r} needs either path or world")
        if source.world is not None and source.samples is None:
            raise ValueError(f"data set {source.name!r} has no end: give it samples")
    names = [source.name for source in recipe.data]
    if len(set(names)) != len(names):
        raise ValueError("two data sets have the same name; losses are reported by name")


def read(values: dict) -> Recipe:
    """The recipe whose dataclasses.asdict gave these values."""
    return _read(Recipe, values)


def _read(kind, value):
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], entry) for name, entry in value.items()})
    if origin is list:
        return [_read(inner[0], entry) for entry in value]
    if origin is tuple:
        return tuple(value)
    if value is not None and origin is UnionType:
        return _read(inner[0], value)
    return value
