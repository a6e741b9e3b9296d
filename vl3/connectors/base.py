"""What every connector is, and which class a name in a configuration stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import nn

from vl3.arguments import shown
from vl3.values import Grid, TokenGrid

_CLASSES: dict[str, type[Connector]] = {}  # by a pattern of names
Class = TypeVar("Class", bound="type[Connector]")


class Connector(nn.Module):
    """Vision features to visual tokens; built as cls(name, vision width, language width).

    mixes: whether a token is made of several merged cells. Nothing is pruned then, because every
    token needs all of its cells, and the whole grid is encoded and joined at once.
    """

    mixes: ClassVar[bool] = True

    @classmethod
    def token_grid(cls, grid: Grid) -> TokenGrid:
        """The tokens of a clip of this grid, and which frames and merged cells each stands for."""
        raise NotImplementedError(f"{cls.__name__} does not say which tokens it makes")

    def forward(self, x_MD: torch.Tensor, grids: Sequence[Grid] = ()) -> torch.Tensor:
        """The tokens of all clips, one after the other.

        Shapes: x_MD - a feature of each merged cell, clips in their order, frames in theirs, rows
                from the top; where the connector does not mix, of any cells and without grids
                returns [K, language width], K as token_grid says of the grids
        """
        raise NotImplementedError


def register(names: str) -> Callable[[Class], Class]:
    """Makes a class the connector of that name, or of all that a regular expression matches.

    A second class of the same name takes the place of the first.
    """

    def known(connector: Class) -> Class:
        _CLASSES[names] = connector
        return connector

    return known


def connector_class(name: str) -> type[Connector]:
    """The class of that name. Raises: ValueError for a name that nobody registered."""
    for names, connector in _CLASSES.items():
        if isinstance(name, str) and re.fullmatch(names, name):
            return connector
    raise ValueError(
        f"connector is linear or mlpNx_gelu, e.g. mlp2x_gelu, one of VideoLLaMA 2 "
        f"(vl3/connectors/stc.py), e.g. stc_connector, or one that you register with "
        f"vl3.connectors.register - got {shown(name)}"
    )
