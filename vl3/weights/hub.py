"""A model's name to its folder on disk: a path, a hub id, or the bundled nano model."""

from __future__ import annotations

import re
from pathlib import Path

from vl3.layouts import LayoutError
from vl3.weights.runs import checkpoints

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "nano"
WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")


def resolve(name: str | Path | None, *, offline: bool = False) -> Path:
    """The folder of a checkpoint; None gives the bundled nano model, a training run its last one.

    A hub id (owner/name) is downloaded with a progress bar, or taken from the local hub cache when
    offline. Only data files are fetched, never code.
    Raises: LayoutError when nothing of that name can be had, in one sentence.
    """
    if name is None:
        return BUNDLED
    if (folder := Path(name).expanduser()).is_dir():
        written = checkpoints(folder)
        return written[-1] if written else folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise LayoutError(
            f"no folder {str(name)!r}; give a checkpoint folder or a hub id like "
            "DAMO-NLP-SG/VideoLLaMA3-2B"
        )
    return _snapshot(str(name), offline)


def _snapshot(hub_id: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(
            snapshot_download(hub_id, allow_patterns=list(WANTED), local_files_only=offline)
        )
    except LocalEntryNotFoundError as error:
        why = "it is not in the local cache" if offline else "the hub cannot be reached"
        raise LayoutError(
            f"{hub_id} cannot be loaded: {why}; download it once with a network connection, or "
            "give a folder"
        ) from error
    except GatedRepoError as error:
        raise LayoutError(
            f"{hub_id} cannot be downloaded: its owner asks who you are; accept the conditions on "
            "its page and log in with hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise LayoutError(
            f"{hub_id} cannot be downloaded: the hub has no such model, or it is private; check "
            "the spelling, or log in with hf auth login"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LayoutError(f"{hub_id} cannot be downloaded: {reason}") from error
