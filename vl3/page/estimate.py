"""How much memory the weights of a model will take, before they are loaded."""

from __future__ import annotations

import json
from pathlib import Path

from vl3.page import words

# Parameters outside and inside the language model's linear layers, in the two published sizes
# (weights in bfloat16; only those linear layers are quantised).
_PUBLISHED = {"videollama3-2b": (0.66e9, 1.31e9), "videollama3-7b": (1.50e9, 6.53e9)}
_BYTES = {"none": 2.0, "nf4": 0.57, "int8": 1.05}
_LINEAR_SHARE = 0.75


def sentence(model: str, quantize: str) -> str:
    """One line for the page: what the weights will take, or why that is not known."""
    model = (model or "").strip()
    if not model:
        return "nano: less than 100 MB."
    size_bytes = weights_bytes(model, quantize or "none")
    if size_bytes is None:
        return "Memory unknown: no weights in this folder, and no published size of that name."
    return f"About {words.memory(size_bytes)} for the weights, and more for long videos."


def weights_bytes(model: str, quantize: str) -> float | None:
    """Bytes of the weights as loaded; None where neither folder nor name tells."""
    per_weight = _BYTES[quantize]
    for name, (kept, linear) in _PUBLISHED.items():
        if model.lower().rstrip("/").endswith(name):
            return kept * _BYTES["none"] + linear * per_weight
    folder = _written_last(Path(model))
    if base := _base(folder):
        return weights_bytes(base, quantize)
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not stored:
        return None
    shrunk = per_weight / _BYTES["none"]
    return stored * (1 - _LINEAR_SHARE + _LINEAR_SHARE * shrunk)


def _written_last(folder: Path) -> Path:
    """The last checkpoint of a training run; any other folder itself."""
    written = [path.parent for path in folder.glob("checkpoint-*/vl3_run.json")]
    return max(written, key=lambda path: int(path.name.rpartition("-")[2]), default=folder)


def _base(folder: Path) -> str | None:
    """The model that the adapter in a folder belongs to; None for a folder without one."""
    file = folder / "adapter_config.json"
    if not file.is_file() or (folder / "config.json").is_file():
        return None
    return json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
