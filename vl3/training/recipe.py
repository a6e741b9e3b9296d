"""A training run in numbers: what starts it, what trains at which rate, on which data.

A recipe is a YAML file with these names (train_cli reads it). What is not named under `rates` is
frozen. Defaults are those of the official scripts; the shipped recipes write down what differs.
The docstring of each class has a line for each setting, which is also its line of `run --help`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vl3.arguments import shown
from vl3.training.ranges import ADAPTED, HEARING, MODULES, check_settings, check_world


@dataclass(kw_only=True)
class Start:
    """Where the weights come from: one whole checkpoint, or an encoder and a language model.

    model: folder or hub id of a whole model in any layout; a run folder continues its last weights
    vision: plain SigLIP, a SigLIP-NaViT, or a whole model whose encoder is taken
    language: any causal language model of transformers; the connector between the two is new
    connector: between vision and language, like mlp2x_gelu (where none is named) or stc_connector;
        with model a new one in place of its own
    tower: true: the encoder keeps its one size, as in VideoLLaMA 2
    nano: true: an untrained nano with a tokenizer made for the toy world
    ear: for a model without one: BEATs' .pt file, a folder of Whisper, or nano-whisper or
        nano-beats for an untrained small one; the connector between ear and language model is new
    quantize: 4-bit or 8-bit linears in the (then frozen) language model
    """

    model: str | None = None
    vision: str | None = None
    language: str | None = None
    connector: str | None = None
    tower: bool = False
    nano: bool = False
    ear: str | None = None
    quantize: Literal["nf4", "int8"] | None = None


@dataclass(kw_only=True)
class Rates:
    """Learning rate of each module; without one the module is frozen.

    vision: rate of the vision encoder
    connector: rate of the layers between encoder and language model
    language: rate of the language model
    ear: rate of what turns sound into features
    audio_connector: rate of the layers between ear and language model
    adapter: rate of the low-rank adapters
    Source: official train.py, where a learning rate left out freezes.
    """

    vision: float | None = None
    connector: float | None = None
    language: float | None = None
    ear: float | None = None
    audio_connector: float | None = None
    adapter: float | None = None


@dataclass(kw_only=True)
class Adapter:
    """Low-rank adapters in the linear layers of some modules.

    kind: dora adds a magnitude for each output to lora
    rank: numbers between the two matrices of an adapter
    alpha: what an adapter adds is multiplied by alpha / rank
    dropout: share of an adapter's inputs left out at random
    width: hidden size of the language model that rates.adapter is meant for; half as wide a model
        takes twice the rate. null: the rate as it is
    on: modules that get adapters, of vision, connector, language, ear, audio_connector, and words,
        the output head: without it words that the model has never said stay unsaid
    """

    kind: Literal["lora", "dora"] = "lora"
    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    width: int | None = None
    on: list[str] = field(default_factory=lambda: ["language"])


@dataclass(kw_only=True)
class World:
    """Scenes of the toy world drawn as they are needed, never the same one twice.

    seconds: shortest and longest clip in whole seconds; [0, 0] gives images
    sprites: fewest and most shapes
    families: how often each family of questions is asked, relative to the others
    questions: questions about one scene, which share its visual tokens
    follow: share of questions that follow another one in the same conversation
    digits: share of scenes with a digit
    changing: share of the digits in clips that change on the way
    shaky: share of clips that shake
    noisy: share of clips with noise
    rescaled: share of clips drawn large and made smaller
    sizes_px: height and width of the pictures, one of the pairs for each scene
    sound: share of clips with sound; the others are silent
    alone: share of those that are heard without their picture
    sounds: fewest and most sounds in a clip with sound
    voices: share of sounds that are spoken digits
    hum: share of clips with sound that have a hum behind it
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
    sound: float = 0.0
    alone: float = 0.0
    sounds: list[int] = field(default_factory=lambda: [0, 3])
    voices: float = 0.0
    hum: float = 0.0


@dataclass(kw_only=True)
class Source:
    """One data set of the mix.

    name: what losses and messages call it, and --data.NAME on the command line
    path: JSONL or JSON file, WebDataset shards (*.tar), a folder or hf://name of a Hugging Face
        data set
    world: instead of a path, scenes of the toy world
    format: format of the rows; told by their keys where none is named
    media_root: where relative paths of media begin; the folder of the file where none is named
    part: which of batch.parts it belongs to, where these are named
    samples: how many an epoch takes; more than there are repeats, fewer takes others each epoch
    sets: names of the paper's data sets that belong here, for the reader
    """

    name: str
    path: str | None = None
    world: World | None = None
    format: str | None = None
    media_root: str | None = None
    part: str | None = None
    samples: int | None = None
    sets: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Media:
    """How media become visual tokens during training; null leaves the checkpoint's own setting.

    fps: frames taken from a second of video
    max_frames: most frames taken from a video
    image_merge: patches of an image along each side that become one token
    video_merge: the same for the frames of a video
    fit: how a picture becomes the square of a vision tower: its middle, out of shape or with bars
    prune: whether tokens that repeat the frame before are left out
    frame_tokens: most merged cells of each picture and frame
    visual_tokens: most visual tokens of a sample; larger pictures are made smaller
    sound: whether sounds and the tracks of videos are heard, by a model with an ear
    sound_tokens: most tokens of sound of a sample; of more, neighbours are joined
    sound_order: where the sound of a video stands; interleave between the frames, chunk after the
        frames of two seconds, append after the last frame
    cache_gb: decoded frames kept on disk between epochs, in the folder of the run; 0 keeps none
    """

    fps: float | None = None
    max_frames: int | None = None
    image_merge: int | None = None
    video_merge: int | None = None
    fit: Literal["crop", "stretch", "pad"] | None = None
    prune: bool | None = None
    frame_tokens: int | None = None
    visual_tokens: int = 10240
    sound: bool | None = None
    sound_tokens: int | None = None
    sound_order: Literal["interleave", "chunk", "append"] | None = None
    cache_gb: float = 0.0


@dataclass(kw_only=True)
class Batch:
    """How samples become steps.

    samples: samples of one optimizer step, over all processes
    tokens: most language tokens of one forward pass; a step is cut into as many as it needs
    patches: most vision patches of one forward pass
    parts: how many samples of each step come from the data sets of each part (data.NAME.part),
        relative to each other, like {av: 2, video: 1, audio: 1}; an epoch is all of the first part
        once, and of the others all are taken before any comes again
    pieces: most pieces of sound of one forward pass, of 30 s each with Whisper and BEATs
    max_tokens: longest sample
    overlong: what becomes of longer samples; skip leaves them out, truncate learns their first
        max_tokens tokens where these hold all pictures and something to learn
    """

    samples: int = 128
    tokens: int = 16384
    patches: int = 65536
    parts: dict[str, int] = field(default_factory=dict)
    pieces: int = 64
    max_tokens: int = 16384
    overlong: Literal["skip", "truncate"] = "skip"


@dataclass(kw_only=True)
class Optim:
    """The optimizer and its schedule.

    kind: muon takes orthogonalised momentum for the matrices (rates.* times muon_factor) and adamw
        for the rest
    betas: how much of the running mean of gradients, and of their squares, is kept at each step
    eps: added where a gradient is divided by its size
    weight_decay: share of the weights of matrices taken off at each step, times the rate
    muon_factor: the rate of matrices under muon is rates.* times this
    schedule: how the rate falls after the warm-up
    warmup: share of the steps over which the rate rises from nothing
    floor: share of the rate that is left at the end
    clip: longest gradient; longer ones are shortened to it, 0 leaves them
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
    """Held-out questions, answered with generated text during training.

    every: steps between two times of asking; without it none is asked
    sources: data sets that are asked about, with the settings of data.NAME
    samples: samples asked about, over all of these data sets
    max_new_tokens: longest answer
    """

    every: int | None = None
    sources: list[Source] = field(default_factory=list)
    samples: int = 32
    max_new_tokens: int = 64


@dataclass(kw_only=True)
class Nano:
    """Losses beside the questions, for a model that starts from nothing (vl3.training.nano).

    encoder_steps: steps on images of the toy world before the first one, in place of a pre-trained
        encoder
    spatial_images: images of the toy world per step on which the encoder goes on learning to see
    temporal_loss: whether visual tokens of toy clips learn what came, moves and has gone
    sound_words: whether the tokenizer gets words for what is heard, with the ear of start.ear
    ear_steps: steps on sounds of the toy world before the first one, in place of a pre-trained ear
    sounds: sounds of the toy world per step on which the ear goes on learning to hear
    sources: clips with sound per step whose tokens of sound learn which shape makes them
    """

    encoder_steps: int = 0
    spatial_images: int = 0
    temporal_loss: bool = False
    sound_words: bool = False
    ear_steps: int = 0
    sounds: int = 0
    sources: int = 0


@dataclass(kw_only=True)
class Recipe:
    """One training run.

    name: name of the run
    out: folder of the run; {name} stands for the name
    start: where the weights come from
    rates: learning rate of each module
    adapter: low-rank adapters, or null for none
    data: data sets of the mix
    media: how media become visual tokens
    batch: how samples become steps
    optim: the optimizer and its schedule
    evaluate: questions asked during training
    epochs: how often the mix is seen; counts where steps is null
    least_steps: steps at least; a small data set is seen more often than epochs says until there
        are so many
    steps: optimizer steps in all, instead of epochs
    remember: scenes of the toy world per step on which a model with an adapter is held to what it
        said before (vl3.training.remember)
    nano: what only the curriculum of the bundled model needs
    seed: decides the order of the samples and everything else that is drawn at random
    dtype: format of the arithmetic; auto is bfloat16 where the device computes it fast
    checkpointing: modules, of vision, language and ear, whose blocks are computed again in the
        backward pass, which saves memory and takes a third more time
    workers: processes that read samples; 0 reads them between the steps
    save_every: steps between two checkpoints
    keep: checkpoints that stay, the last ones
    log_every: steps between two lines of metrics.jsonl
    max_bad: share of a data set's samples that may be unreadable before the run stops; one always
        may. Over-long samples that batch.overlong leaves out do not count
    report_to: trackers of transformers beside metrics.jsonl, like tensorboard or wandb
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
    least_steps: int = 0
    steps: int | None = None
    remember: int = 0
    nano: Nano = field(default_factory=Nano)
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
    """Raises ValueError, naming the knob, for a setting outside its range and where parts of a
    recipe contradict each other."""
    check_settings(recipe, "")
    if set(recipe.out.replace("{name}", "")) & set("{}"):
        raise ValueError(f"out may hold {{name}} and no other brace - got {shown(recipe.out)}")
    starts = [recipe.start.model, recipe.start.nano, recipe.start.vision]
    if sum(map(bool, starts)) != 1 or bool(recipe.start.vision) != bool(recipe.start.language):
        raise ValueError("start names exactly one of: model; vision and language; nano")
    if recipe.start.tower and not recipe.start.vision:
        raise ValueError("start.tower goes with start.vision and start.language")
    if recipe.start.connector and recipe.start.nano:
        raise ValueError(
            "start.connector goes with start.model, or with start.vision and start.language"
        )
    rates = {name: getattr(recipe.rates, name) for name in (*MODULES, "adapter")}
    if not any(rates.values()):
        raise ValueError("nothing trains: give a learning rate under rates, e.g. rates.language")
    if (rates["adapter"] is None) != (recipe.adapter is None):
        raise ValueError("rates.adapter and adapter go together: name both or neither")
    if recipe.adapter:
        if not recipe.start.model or recipe.start.ear or recipe.start.connector:
            made_of = "start.nano" if recipe.start.nano else "start.vision and start.language"
            made_of = "start.connector" if recipe.start.model else made_of
            made_of = "start.ear" if recipe.start.ear else made_of
            raise ValueError(
                f"an adapter needs a base that can be loaded again, and what {made_of} makes is in "
                "this run only; train it without adapter first (rates.connector is enough), then "
                "give that run as start.model"
            )
        if not recipe.adapter.on:
            raise ValueError(f"adapter.on lists some of {', '.join(ADAPTED)} - got []")
        whole = [name for name in MODULES if rates[name]]
        both = [name for name in whole if name in recipe.adapter.on]
        if "language" in whole and "words" in recipe.adapter.on:
            both.append("language")
        if both:
            raise ValueError(
                f"{both[0]} would train whole and through adapters; "
                f"drop rates.{both[0]} or take it out of adapter.on"
            )
    if recipe.remember and (recipe.adapter is None or any(rates[name] for name in MODULES)):
        raise ValueError(
            "remember needs the model as it was, which is there only while nothing but an adapter "
            "trains; set remember to 0, or name only rates.adapter"
        )
    if recipe.start.quantize and rates["language"]:
        raise ValueError("a quantized language model cannot train whole; drop rates.language")
    sources = (("data", recipe.data), ("evaluate.sources", recipe.evaluate.sources))
    for prefix, source in ((prefix, source) for prefix, of in sources for source in of):
        if (source.path is None) == (source.world is None):
            raise ValueError(f"data set {source.name!r} needs either path or world")
        if source.world is not None:
            if source.samples is None:
                raise ValueError(f"data set {source.name!r} has no end: give it samples")
            check_world(source.name, source.world, f"{prefix}.{source.name}.world")
    names = [source.name for source in recipe.data]
    if len(set(names)) != len(names):
        raise ValueError("two data sets have the same name; losses are reported by name")
    _check_parts(recipe)


def learns_to_hear(recipe: Recipe) -> bool:
    """Whether the ear or its connector trains, whole or through adapters."""
    adapted = recipe.adapter.on if recipe.adapter else ()
    return any(getattr(recipe.rates, name) or name in adapted for name in HEARING)


def _check_parts(recipe: Recipe) -> None:
    """Raises: ValueError where the parts of a step and those of data sets are not the same."""
    parts, whole = recipe.batch.parts, sum(recipe.batch.parts.values())
    for source in recipe.data:
        if (source.part in parts) != bool(parts) or (source.part and not parts):
            known = ", ".join(parts) or "none"
            raise ValueError(
                f"data.{source.name}.part is one of batch.parts ({known}) - got "
                f"{shown(source.part)}"
            )
    named = {source.part for source in recipe.data}
    if recipe.data and (empty := [name for name in parts if name not in named]):
        raise ValueError(f"batch.parts.{empty[0]} has no data set; give one data.NAME.part")
    if parts and recipe.batch.samples % whole:
        raise ValueError(
            f"batch.samples is a multiple of {whole}, the sum of batch.parts - got "
            f"{recipe.batch.samples}"
        )
