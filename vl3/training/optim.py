"""Parameter groups per module, the optimizer over them, and the rate over the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from vl3.training.muon import Muon
from vl3.training.recipe import Optim, Rates, Recipe


def owner(name: str) -> str:
    """The module a parameter belongs to: vision, connector, language, or adapter."""
    return "adapter" if "lora_" in name else name.split(".")[0]


def rates_for(recipe: Recipe, hidden_size: int) -> Rates:
    """The rates of a recipe for a language model of that width.

    Source: Yang et al., Tensor Programs V: under Adam the best rate of a matrix goes as one over
    its width, so one recipe serves a nano and a 7B.
    """
    if recipe.adapter is None or recipe.adapter.width is None:
        return recipe.rates
    rate = cast(float, recipe.rates.adapter)
    return replace(recipe.rates, adapter=rate * recipe.adapter.width / hidden_size)


HEADS = ("embed_tokens", "lm_head", "embed_out")  # tables by name, where adapters stand on them too


def groups(model: nn.Module, rates: Rates, weight_decay: float) -> list[dict]:
    """Trainable parameters by module, matrices (which decay) apart from the rest.

    Each group names its module and kind, so that logs and state files can be read.
    """
    found: dict[tuple[str, str], list[nn.Parameter]] = {}
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for name, param in model.named_parameters():
        if param.requires_grad:
            is_table = id(param) in tables or any(head in name for head in HEADS)
            kind = "rest" if param.ndim < 2 else "table" if is_table else "matrices"
            found.setdefault((owner(name), kind), []).append(param)
    return [
        {
            "params": params,
            "module": module,
            "kind": kind,
            "lr": getattr(rates, module),
            "weight_decay": 0.0 if kind == "rest" else weight_decay,
        }
        for (module, kind), params in found.items()
    ]


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each with its own groups."""

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        super().__init__([g for member in self.members for g in member.param_groups], {})

    def step(self, closure=None) -> None:  # type: ignore[override]  # nothing is evaluated anew
        for member in self.members:
            member.step()

    def state_dict(self) -> dict:
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict) -> None:
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        self.param_groups = [g for member in self.members for g in member.param_groups]


def optimizer(model: nn.Module, rates: Rates, settings: Optim) -> torch.optim.Optimizer:
    """AdamW over all groups, or Muon for the matrices and AdamW for everything else."""
    every = groups(model, rates, settings.weight_decay)
    adamw: dict[str, Any] = {"betas": settings.betas, "eps": settings.eps}
    if settings.kind == "adamw":
        return torch.optim.AdamW(every, **adamw)
    matrices = [group for group in every if group["kind"] == "matrices"]
    for group in matrices:
        group["lr"] = full_rate(group, rates, settings)
    rest = [group for group in every if group["kind"] != "matrices"]
    members = [Muon(matrices, lr=0.0)] if matrices else []
    return Together(members + ([torch.optim.AdamW(rest, **adamw)] if rest else []))


def full_rate(group: dict, rates: Rates, settings: Optim) -> float:
    """The rate of a parameter group where the schedule takes nothing off."""
    is_muon = settings.kind == "muon" and group["kind"] == "matrices"
    return getattr(rates, group["module"]) * (settings.muon_factor if is_muon else 1.0)


def factor(settings: Optim, step: int, steps: int) -> float:
    """Share of the full rate at a step: linear warm-up, then the schedule down to the floor."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    shape = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }[settings.schedule]
    return settings.floor + (1 - settings.floor) * shape
