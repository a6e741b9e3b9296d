"""The start of training: a vision encoder and a language model joined by a fresh connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from vl3 import families
from vl3.arguments import instance, shown, whole
from vl3.config import VL3Config
from vl3.families import layouts
from vl3.families.layouts import LayoutError
from vl3.families.settings import ProcessorSettings
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor, load_tokenizer
from vl3.weights.places import local

ADDED_TOKENS = ("<image>", "<|stream_start|>", "<|stream_end|>")


def assemble(
    vision: str | Path,
    language: str | Path,
    *,
    connector: str = "mlp2x_gelu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """A model whose encoder and language model are loaded and whose connector is new.

    vision: a folder with plain SigLIP, the stand-alone SigLIP-NaViT, or a whole VideoLLaMA3 whose
    encoder is taken (the 7B starts from the trained 2B's). language: a Qwen2.5 folder.
    The tokenizer gets the three visual tokens; the embedding matrix has spare rows for them.
    Raises: LayoutError listing tensors that are missing, unknown or of another shape.
    """
    instance("dtype", dtype, torch.dtype, "a torch.dtype, like torch.float32")
    seed = whole("seed", seed, low=-(2**63), high=2**64 - 1)
    vision, language = _folder("vision", vision), _folder("language", language)
    text = families.read_language(language)
    tokenizer = load_tokenizer(language)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS)})
    if len(tokenizer) > text.vocab_size:
        raise LayoutError(
            f"{language.name} has {text.vocab_size} embedding rows for {len(tokenizer)} tokens; "
            "use a checkpoint with spare rows, as Qwen2.5 has"
        )
    encoder = families.read_vision(vision)
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    config = VL3Config(
        vision_config=encoder, text_config=text, connector=connector, image_token_id=image_token_id
    )
    torch.manual_seed(seed)
    model = VL3ForConditionalGeneration(config).to(dtype)
    _fill(model, vision, "vision.")
    _fill(model, language, "language.")
    model.tie_weights()
    settings = ProcessorSettings(patch=encoder.patch_size)
    return model, VL3Processor(tokenizer, settings, image_token_id=image_token_id)


def _folder(name: str, given: str | Path) -> Path:
    """The checkpoint folder. Raises: LayoutError."""
    try:
        folder = local(given)
    except ValueError as error:
        raise LayoutError(f"{name}: {error}") from None
    if folder is None:
        raise LayoutError(f"{name} is a checkpoint folder - got {shown(given)}; download it first")
    return folder


@torch.no_grad()
def _fill(model: VL3ForConditionalGeneration, folder: Path, prefix: str) -> None:
    """Copies the tensors of one part, strictly."""
    wanted = {name: t for name, t in model.state_dict().items() if name.startswith(prefix)}
    if model.config.tie_word_embeddings:
        wanted.pop("language.lm_head.weight", None)
    unknown, misfits = [], []
    for there, here, tensor in _tensors(folder):
        if not here.startswith(prefix):
            continue
        if here == "language.lm_head.weight" and model.config.tie_word_embeddings:
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
    layout = families.detect(folder, names)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for there in tensors.keys():  # noqa: SIM118 - not a dict
                here = layout.here(there)
                if here is not None:
                    yield there, here, tensors.get_tensor(there)
