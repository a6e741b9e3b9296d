"""Connectors: vision features to visual tokens of the language model, by the name in the config.

A connector states which tokens it makes of a grid (`token_grid`); prompts, pictures, estimates and
replays ask that and nothing else (docs/architecture.md). A file of its own and a line here add one;
a class of one's own is registered before a model that names it is built or loaded:

    @vl3.connectors.register("mine")
    class Mine(vl3.connectors.Connector): ...
"""

from vl3.connectors.base import Connector, connector_class, register
from vl3.connectors.mlp import MLPConnector
from vl3.connectors.stc import MeanOverTime, Windowed

__all__ = [
    "Connector",
    "MLPConnector",
    "MeanOverTime",
    "Windowed",
    "connector_class",
    "register",
]
