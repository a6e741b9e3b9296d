"""The start of training: a vision encoder and a language model joined by a fresh connector."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from vl3 import families
from vl3.arguments import instance, shown, whole
from vl3.config import VL3Config
from vl3.connectors import connector_class
from vl3.families import layouts
from vl3.families.layouts import LayoutError
from vl3.families.settings import ProcessorSettings
from vl3.families.template import CHATML, IMAGE_TOKEN, STREAM_TOKENS, Template
from vl3.families.videollama2 import NUM_FRAMES, TEMPLATES, settings_of, square_of
from vl3.hf.chat_template import chat_template
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor, load_tokenizer
from vl3.settings import PruneSettings
from vl3.vision.towers import is_tower
from vl3.weights.language_check import check_language
from vl3.weights.places import local
from vl3.weights.towers import load_tower, read_tower

ROWS_OF = 64  # a token table grows to a multiple of this, as matrix products like it
TOWER_FRAMES = 16  # of a video, as VideoLLaMA 2.1 has them
APART = 0.1  # deviation of new rows, as a share of that of the old ones


def assemble(
    vision: str | Path,
    language: str | Path,
    *,
    connector: str = "mlp2x_gelu",
    tower: bool = False,
    template: Template | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """A model whose encoder and language model are loaded and whose connector is new.

    vision: a folder with plain SigLIP, the stand-alone SigLIP-NaViT, CLIP, which stays a tower of
    one size, or a whole model whose encoder is taken (the 7B starts from the trained 2B's).
    language: a folder with any causal language model of transformers that attends to keys and
    values (Llama, Mistral, Mixtral, Qwen, SmolLM ...).
    tower: whether the encoder, CLIP or SigLIP, keeps its one size, as in VideoLLaMA 2; frames are
    then padded to squares with the mean colour, 16 spread over a video, and words are in that
    family's own format where it has one for the language model.
    template: the words around what is said; None is ChatML, as VideoLLaMA 3 has it, after the token
    that the tokenizer itself puts before every text (Llama's and Mistral's do). The tokenizer gets
    the tokens of the template and the three visual ones where it lacks them, and the tables of the
    language model grow where they lack rows, by rows near the mean of the old ones.
    Raises: LayoutError listing tensors that are missing, unknown or of another shape, or saying
    why a language model does not work here.
    """
    instance("dtype", dtype, torch.dtype, "a torch.dtype, like torch.float32")
    seed = whole("seed", seed, low=-(2**63), high=2**64 - 1)
    if template is not None:
        instance("template", template, Template, "a vl3.families.template.Template, or None")
    vision, language = _folder("vision", vision), _folder("language", language)
    text = families.read_language(language)
    tokenizer = load_tokenizer(language)
    template = template or _usual_template(tokenizer, text.model_type if tower else "")
    _add_tokens(tokenizer, template)
    rows = 1 + max(tokenizer.get_vocab().values())
    grown = deepcopy(text)
    if rows > text.vocab_size:
        grown.vocab_size = ROWS_OF * -(-rows // ROWS_OF)
    encoder = read_tower(vision) if tower else families.read_vision(vision)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config = VL3Config(
        vision_config=encoder, text_config=grown, connector=connector, image_token_id=image_token_id
    )
    torch.manual_seed(seed)
    model = VL3ForConditionalGeneration(config)
    model.language = None  # its random weights make room for those of the folder
    model.to(dtype)
    load_tower(model.vision.tower, vision) if tower else _fill_vision(model, vision)
    model.language = _load_language(language, text, dtype)
    check_language(model.language, language.name)
    if rows > text.vocab_size:
        grow(model.language, grown.vocab_size, seed)
    model.config.text_config = model.language.config
    model.tie_weights()
    _set_ends(model, tokenizer, template)
    settings = _settings(encoder, connector, tower)
    tokenizer.chat_template = chat_template(template=template)
    processor = VL3Processor(tokenizer, settings, image_token_id=image_token_id, template=template)
    return model.eval(), processor


def renew_connector(
    model: VL3ForConditionalGeneration, processor: VL3Processor, connector: str, seed: int = 0
) -> VL3Processor:
    """Gives the model a fresh connector in place of its own; the processor that knows of it.

    Raises: ValueError for a name that nobody registered, and for sizes it cannot join.
    """
    config, kind = model.config, connector_class(connector)
    torch.manual_seed(seed)
    fresh = kind(connector, config.vision_config.hidden_size, config.text_config.hidden_size)
    config.connector = connector
    model.connector = fresh.to(model.device, model.dtype)
    processor.settings = joined_by(processor.settings, connector)
    return processor


def joined_by(settings: ProcessorSettings, connector: str) -> ProcessorSettings:
    """The settings for another connector; one that mixes has nothing pruned."""
    prune = None if connector_class(connector).mixes else settings.prune
    return replace(settings, connector=connector, prune=prune)


def _folder(name: str, given: str | Path) -> Path:
    """The checkpoint folder. Raises: LayoutError."""
    try:
        folder = local(given)
    except ValueError as error:
        raise LayoutError(f"{name}: {error}") from None
    if folder is None:
        raise LayoutError(f"{name} is a checkpoint folder - got {shown(given)}; download it first")
    return folder


def _settings(encoder: Any, connector: str, tower: bool) -> ProcessorSettings:
    """How a model with this encoder and connector sees clips."""
    if tower:
        found = settings_of(encoder, connector, TOWER_FRAMES)
        return replace(found, square=square_of(encoder, "pad"))
    prune = None if connector_class(connector).mixes else PruneSettings()
    if is_tower(encoder):
        return replace(settings_of(encoder, connector, NUM_FRAMES), prune=prune)
    return ProcessorSettings(patch=encoder.patch_size, connector=connector, prune=prune)


def _usual_template(tokenizer, language: str) -> Template:
    """ChatML, after the token that the tokenizer puts before every text, where it does.

    A language model that always saw one there leans on it: much of its attention rests on it.
    language: its kind, where VideoLLaMA 2's own words are wanted if it has any
    """
    if language in TEMPLATES:
        return TEMPLATES[language]
    first = tokenizer("a").input_ids[0]
    if tokenizer.bos_token is None or first != tokenizer.bos_token_id:
        return CHATML
    begin = tokenizer.bos_token
    return Template(special=(*CHATML.special, begin), begin=begin)


def _add_tokens(tokenizer, template: Template) -> None:
    """Gives the tokenizer what it lacks of the template's tokens, then the visual ones."""
    known = tokenizer.get_vocab()
    wanted = [*template.special, IMAGE_TOKEN, *STREAM_TOKENS]
    lacking = [token for token in wanted if token not in known]
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=True) for token in lacking],
        special_tokens=True,
    )


def _load_language(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The language model of a folder, strictly, as transformers reads its kind."""
    layouts.tensor_names(folder)  # whose errors are sentences
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told by our own sentence, with all names
        trust_remote_code=False,
    )
    layouts.check_loaded(folder, families.LANGUAGE, info)
    return model


@torch.no_grad()
def grow(language: PreTrainedModel, rows: int, seed: int) -> None:
    """Gives both token tables so many rows; the new ones lie close around the mean of the old ones.

    So none is ever the likeliest word before it has learned to be: drawn as wide as the old ones,
    SmolLM2 answered about a clip in rows that no token has. A little apart, because a slot is known
    by its embedding.
    """
    have = language.get_input_embeddings().weight.shape[0]
    language.resize_token_embeddings(rows, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    head = language.get_output_embeddings()
    for table in {id(m.weight): m.weight for m in (language.get_input_embeddings(), head)}.values():
        old = table[:have].float()
        drawn = torch.randn(rows - have, table.shape[1], generator=generator)
        table[have:] = (old.mean(dim=0) + APART * old.std(dim=0) * drawn).to(table.dtype)
    if head.bias is not None:
        head.bias[have:] = head.bias[:have].mean()


def _set_ends(model: VL3ForConditionalGeneration, tokenizer, template: Template) -> None:
    """What generate() stops at and pads with: the template's end token before the model's own."""
    own = model.language.generation_config
    ids = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ids = [tokenizer.convert_tokens_to_ids(template.end), *ids]
    found = model.generation_config
    found.eos_token_id = list(dict.fromkeys(token for token in ids if token is not None))
    found.bos_token_id = own.bos_token_id
    pads = (own.pad_token_id, tokenizer.pad_token_id, found.eos_token_id[0])
    found.pad_token_id = next(token for token in pads if token is not None)


@torch.no_grad()
def _fill_vision(model: VL3ForConditionalGeneration, folder: Path) -> None:
    """Copies the tensors of the vision encoder, strictly."""
    wanted = {f"vision.{name}": tensor for name, tensor in model.vision.state_dict().items()}
    unknown, misfits = [], []
    for there, here, tensor in _tensors(folder):
        if not here.startswith("vision."):
            continue
        if here not in wanted:
            unknown.append(there)
        elif wanted[here].shape != tensor.shape:
            misfits.append(f"{there} {tuple(tensor.shape)} for {tuple(wanted[here].shape)}")
            del wanted[here]
        else:
            wanted.pop(here).copy_(tensor)
    info = {"missing_keys": wanted, "unexpected_keys": unknown, "mismatched_keys": misfits}
    layouts.check_loaded(folder, families.detect(folder), info)


def _tensors(folder: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(name there, name here, tensor) of a checkpoint, one at a time."""
    names = layouts.tensor_names(folder)
    family = families.detect(folder, names)
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as tensors:
            for there in tensors.keys():  # noqa: SIM118 - not a dict
                here = family.here(there)
                if here is not None:
                    yield there, here, tensors.get_tensor(there)
    for file in [] if files else sorted(folder.glob("pytorch_model*.bin")):
        for there, tensor in torch.load(file, weights_only=True, mmap=True).items():
            here = family.here(there)
            if here is not None:
                yield there, here, tensor
