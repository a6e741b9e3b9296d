"""What a model computes with, as a digest, and whether a caller's own code takes part in it.

Whatever is kept of a model's work, features of a clip, keys and values of a prompt, queries of a
replay, is good for as long as the model is the same. Weights are told by their content, since an
edit through .data leaves no other trace; that reads each of them once, as one token does. Hooks and
functions of a caller can do anything at any time, so nothing computed with them is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from types import FunctionType, NoneType
from typing import Any, cast

import torch
import xxhash
from torch import nn
from torch.nn.modules import module as torch_module
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Who may write code of a model. Their hooks place weights, unpack them or mask them.
MAKERS = {
    "accelerate",
    "bitsandbytes",
    "builtins",
    "peft",
    "torch",
    "transformers",
    "vl3",
}
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
# What torch and transformers note down in every module, and where a model came from.
BOOKS = vars(nn.Module()).keys() - {"training"} | {
    "_is_hf_initialized",
    "_tp_plan",
    "_ep_plan",
    "_pp_plan",
    "_fsdp_plan",
    "name_or_path",
    "_name_or_path",
    "transformers_version",
}
BLOCKS, RESIDUES = 8, 61  # on a GPU numbers are summed by stretch and by remainder


def fingerprint(module: nn.Module, without: nn.Module | None = None) -> str:
    """Digest of weights, buffers, structure and plain settings of a module and all within it.

    without: a part that is left out

    Adapters are among them: which there are, which are active, merged or disabled. Equal for equal
    models, in another program too. Weights that bitsandbytes packed are told by identity and
    scales, because the order of their bytes changes while they are used.
    """
    parts, configs = _numbered(module, without), set()
    tensors: dict[int, int] = {}
    told: list[tuple] = []
    contents: list[bytes | torch.Tensor] = []
    for part in parts:
        own, kind = vars(part), cast(Any, type(part))
        settings = [] if _packs(kind) else _plain(own)
        config = own.get("config")
        if config is not None and id(config) not in configs:
            configs.add(id(config))
            settings += _plain(vars(config))
        children = [(name, parts.get(child)) for name, child in own["_modules"].items()]
        told.append((kind.__module__, kind.__qualname__, settings, children))
        for name, tensor in (*own["_parameters"].items(), *own["_buffers"].items()):
            is_new = id(tensor) not in tensors
            told.append((name, tensors.setdefault(id(tensor), len(tensors))))
            if tensor is None or not is_new:
                continue
            if _home(type(tensor)) == "bitsandbytes":
                told.append((id(tensor), tensor._version, tensor.dtype, tensor.device.type))
                tensor = getattr(getattr(tensor, "quant_state", None), "absmax", None)
            if tensor is not None:
                told.append((tensor.dtype, tensor.device.type, tuple(tensor.shape)))
                contents.append(_content(tensor))
    return _digest(told, contents)


def checksum(tensor: torch.Tensor) -> str:
    """Digest of a tensor's values, type and shape; they are read once, where they are."""
    return _digest([tensor.dtype, tuple(tensor.shape)], [_content(tensor)])


def has_own_code(module: nn.Module, *functions: Callable) -> bool:
    """Whether code that no model library wrote takes part in a module, or in these functions.

    That is a hook of any kind, on a module or on all of torch's; a method replaced on a module or
    on its class; a module or an attention function of the caller's.
    """
    parts = _numbered(module)
    codes: list[Any] = [*functions]
    for hooks in HOOKS:
        codes += getattr(torch_module, f"_global{hooks}").values()
    for part in parts:
        own = vars(part)
        for hooks in HOOKS:
            codes += own[hooks].values()
        codes += [own[key] for key in own.keys() - BOOKS if callable(own[key])]
        if "config" in own:
            attention = getattr(own["config"], "_attn_implementation", None)
            codes.append(ALL_ATTENTION_FUNCTIONS.get(attention))
    for kind in {type(part) for part in parts}:
        codes += kind.__call__, kind._call_impl, kind.forward
        codes += [code for code in vars(kind).values() if isinstance(code, FunctionType)]
    return any(map(_is_own, codes))


def _numbered(module: nn.Module, without: nn.Module | None = None) -> dict[nn.Module, int]:
    """A module and all within it, each once, by number; what stands in two places has one."""
    found: dict[nn.Module, int] = {}
    waiting = [module]
    while waiting:
        part = waiting.pop()
        if part is not None and part is not without and part not in found:
            found[part] = len(found)
            waiting += vars(part)["_modules"].values()
    return found


@cache
def _packs(kind: type) -> bool:
    """Whether a layer is bitsandbytes', which notes down in it what it finds out at work."""
    return any(_home(base) == "bitsandbytes" for base in kind.__mro__)


def _is_own(code: object) -> bool:
    """Whether a function, or one that it is wrapped around, is of none of the makers."""
    while code is not None:
        while isinstance(code, partial):
            code = code.func
        if _home(code) not in MAKERS:
            return True
        code = getattr(code, "__wrapped__", None)
    return False


def _home(code: object) -> str:
    """The package that something is written in; of a function truly, whatever it calls itself."""
    written = getattr(code, "__globals__", None)
    found = written["__name__"] if written else getattr(code, "__module__", None)
    return (found or type(code).__module__).partition(".")[0]


def _plain(own: dict) -> list[tuple]:
    """The numbers, texts and small collections of them among attributes."""
    return [(key, value) for key, value in own.items() if key not in BOOKS and _is_plain(value)]


def _is_plain(value: object) -> bool:
    if type(value) in (bool, int, float, str, NoneType):
        return True
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, list | tuple) and all(map(_is_plain, value))


def _content(tensor: torch.Tensor) -> bytes | torch.Tensor:
    """Digest of a tensor's bytes; away from the CPU sums of them, int64 [S] on its device."""
    bits_B = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if bits_B.device.type == "cpu":
        return xxhash.xxh3_128_digest(bits_B.numpy().data)
    return _sums(bits_B)


def _sums(bits_B: torch.Tensor) -> torch.Tensor:
    """Sums of 8 bytes each, in one pass without a copy: moving and changing one is noticed."""
    end = len(bits_B) // (8 * BLOCKS * RESIDUES) * (8 * BLOCKS * RESIDUES)
    cube = bits_B[:end].view(torch.int64).view(BLOCKS, -1, RESIDUES)
    return torch.cat([cube.sum(1).flatten(), bits_B[end:].long()])


def _digest(told: list, contents: list[bytes | torch.Tensor]) -> str:
    """Digest of what is told and of contents, brought here with one wait for each device."""
    digest = hashlib.sha256(repr(told).encode())
    away = [each for each in contents if not isinstance(each, bytes)]
    digest.update(b"".join(each for each in contents if isinstance(each, bytes)))
    for device in dict.fromkeys(each.device for each in away):
        there = torch.cat([each for each in away if each.device == device])
        digest.update(there.cpu().numpy().data)
    return digest.hexdigest()
