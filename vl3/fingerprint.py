"""What a model computes with, as a digest, and whether a caller's own code takes part in it.

Whatever is kept of a model's work, features of a clip, keys and values of a prompt, queries of a
replay, is good for as long as the model is the same. Weights are told by their content, since an
edit through .data leaves no other trace; that reads each of them once, as one token does. Hooks and
functions of a caller can do anything at any time, so nothing computed with them is kept.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from types import NoneType

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

BLOCKS, RESIDUES = 8, 61  # numbers are summed by stretch and by remainder: moving one is noticed
STRIDE_BYTES = 8 * BLOCKS * RESIDUES
# Who may write code of a model. Their hooks place weights, unpack them or mask them.
MAKERS = {"accelerate", "bitsandbytes", "builtins", "kernels", "peft", "torch", "transformers",
          "vl3"}  # fmt: skip
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
BOOKS = vars(nn.Module()).keys() - {"training"}  # that torch keeps in every module
NAMES = {"name_or_path", "_name_or_path", "transformers_version"}  # of a folder, not of a model


def fingerprint(module: nn.Module, without: nn.Module | None = None) -> str:
    """Digest of weights, buffers, structure and plain settings of a module and all within it.

    without: a part that is left out

    Adapters are among them: which there are, which are active, merged or disabled. Equal for equal
    models, in another program too. Weights that bitsandbytes packed are told by identity and
    scales, because the order of their bytes changes while they are used.
    """
    digest, seen, sums = hashlib.sha256(), set(), []
    for name, part in module.named_modules(memo=set(without.modules() if without else ())):
        own, kind = vars(part), type(part)
        settings = [] if _packs(kind) else _plain(own, BOOKS)
        config = own.get("config")
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            settings += _plain(vars(config), NAMES)
        digest.update(repr((name, kind.__module__, kind.__qualname__, settings)).encode())
        for key, tensor in (*own["_parameters"].items(), *own["_buffers"].items()):
            if tensor is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            told = (key, tensor.dtype, tensor.device.type)
            if _home(type(tensor)) == "bitsandbytes":
                told += (id(tensor), tensor._version)
                tensor = getattr(getattr(tensor, "quant_state", None), "absmax", None)
            if tensor is not None:
                told += tuple(tensor.shape)
                sums.append(_sums(tensor))
            digest.update(repr(told).encode())
    digest.update(_bytes(sums))
    return digest.hexdigest()


def checksum(tensor: torch.Tensor) -> str:
    """Digest of a tensor's values, type and shape; they are read once, where they are."""
    digest = hashlib.sha256(repr((tensor.dtype, tuple(tensor.shape))).encode())
    digest.update(_bytes([_sums(tensor)]))
    return digest.hexdigest()


def own_code(module: nn.Module) -> str | None:
    """Where code that no model library wrote takes part in a module, in words; None for nowhere.

    That is a hook of any kind, on a module or on all of torch's; a method replaced on a module or
    on its class; a module or an attention function of the caller's.
    """
    for kind in HOOKS:
        if any(map(_is_own, getattr(torch_module, f"_global{kind}").values())):
            return "a hook on all modules"
    for name, part in module.named_modules():
        own, kind, title = vars(part), type(part), name or "the model"
        if any(_is_own(hook) for each in HOOKS for hook in own[each].values()):
            return f"a hook on {title}"
        if _is_own(kind.forward) or _is_own(kind.__call__):
            return f"forward of {title}"
        for key, value in own.items():
            if callable(value) and not isinstance(value, type) and _is_own(value):
                return f"{key} of {title}"
        attention = getattr(own.get("config"), "_attn_implementation", None)
        if _is_own(ALL_ATTENTION_FUNCTIONS.get(attention)):
            return f"attention of {title}"
    return None


@cache
def _packs(kind: type) -> bool:
    """Whether a layer is bitsandbytes', which notes down in it what it finds out at work."""
    return any(_home(base) == "bitsandbytes" for base in kind.__mro__)


def _is_own(code: object) -> bool:
    """Whether a function, or one that it is wrapped around, is of none of the makers."""
    while code is not None:
        while isinstance(code, partial):
            code = code.func
        code = getattr(code, "__func__", code)
        if _home(code) not in MAKERS:
            return True
        code = getattr(code, "__wrapped__", None)
    return False


def _home(code: object) -> str:
    """The package that something is written in; of a function truly, whatever it calls itself."""
    written = getattr(code, "__globals__", None)
    found = written["__name__"] if written else getattr(code, "__module__", None)
    return (found or type(code).__module__).partition(".")[0]


def _plain(own: dict, but) -> list[tuple]:
    """The numbers, texts and small collections of them among attributes."""
    return [(key, value) for key, value in own.items() if key not in but and _is_plain(value)]


def _is_plain(value: object) -> bool:
    if type(value) in (bool, int, float, str, NoneType):
        return True
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, list | tuple) and all(map(_is_plain, value))


def _sums(tensor: torch.Tensor) -> bytes | torch.Tensor:
    """Sums of a tensor's bits, exact: int64 [S] on its device, or bytes where that is the CPU."""
    flat_B = tensor.detach().reshape(-1).view(torch.uint8)
    if flat_B.device.type == "cpu":
        flat_B = flat_B.numpy()
        end = len(flat_B) // STRIDE_BYTES * STRIDE_BYTES
        cube = flat_B[:end].view(np.int64).reshape(BLOCKS, end // STRIDE_BYTES, RESIDUES)
        return np.add.reduce(cube, axis=1).tobytes() + flat_B[end:].tobytes()
    end = flat_B.numel() // STRIDE_BYTES * STRIDE_BYTES
    cube = flat_B[:end].view(torch.int64).view(BLOCKS, end // STRIDE_BYTES, RESIDUES)
    return torch.cat([cube.sum(1).flatten(), flat_B[end:].long()])


def _bytes(sums: list[bytes | torch.Tensor]) -> bytes:
    """All sums, brought here with one wait for each device."""
    found = b"".join(each for each in sums if isinstance(each, bytes))
    away = [each for each in sums if not isinstance(each, bytes)]
    for device in dict.fromkeys(each.device for each in away):
        there = torch.cat([each for each in away if each.device == device])
        found += there.cpu().numpy().tobytes()
    return found
