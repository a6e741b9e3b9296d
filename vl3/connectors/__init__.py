"""Connectors: vision features to the language model's width."""

from vl3.connectors.mlp import MLPConnector

__all__ = ["MLPConnector"]
