"""A model's name to its folder on disk: a path, a hub id, or the bundled nano model."""

from __future__ import annotations

from pathlib import Path

from vl3.arguments import switch
from vl3.bundled import NANO
from vl3.families.layouts import LayoutError
from vl3.weights.places import local

WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")
PICKLED = "pytorch_model*.bin"  # of tensors, read as such alone, where there are no others


def resolve(
    name: str | Path | None, *, offline: bool = False, subfolder: str = "", **options
) -> Path:
    """The folder of a checkpoint; None gives the bundled nano model, a training run its last one.

    A hub id (owner/name) is downloaded with a progress bar, or taken from the local hub cache when
    offline. Only data files are fetched, never code.
    subfolder: of the repository, the only one that is fetched; options: of huggingface_hub's
    snapshot_download (revision, cache_dir, token ...)
    Raises: LayoutError when nothing of that name can be had, in one sentence.
    """
    offline = switch("offline", offline)
    if name is None:
        return NANO
    try:
        folder = local(name)
    except ValueError as error:
        raise LayoutError(str(error)) from None
    if folder is not None:
        return folder
    inside = f"{subfolder}/" if subfolder else ""
    wanted = [f"{inside}{kind}" for kind in WANTED]
    asked = {"allow_patterns": wanted, "local_files_only": offline} | options
    found = _snapshot(str(name), asked)
    if not any(found.glob(f"{inside}*.safetensors")):
        found = _snapshot(str(name), asked | {"allow_patterns": [f"{inside}{PICKLED}"]})
    return found


def _snapshot(hub_id: str, options: dict) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, **options))
    except LocalEntryNotFoundError as error:
        offline = options["local_files_only"]
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
