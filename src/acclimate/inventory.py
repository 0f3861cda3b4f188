"""What a finished stage left behind, so that damage is found before anything builds on it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from acclimate.errors import UserError

FILES = ("model.safetensors", "prototypes.safetensors", "distribution.json", "selection.json")
SOFT = "soft"
"""Folder of soft labels: thousands of files with checksums of their own, which are looked at when one is read."""


def take(folder: Path) -> dict[str, Any]:
    """SHA-256 of each file that later stages need, and number and total size of the soft labels."""
    files: dict[str, Any] = {name: _sha256(folder / name) for name in FILES if (folder / name).exists()}
    if (folder / SOFT).is_dir():
        sizes = [path.stat().st_size for path in (folder / SOFT).glob("[!.]*")]
        files[SOFT] = {"files": len(sizes), "bytes": sum(sizes)}
    return files


def verify(folder: Path, files: dict[str, Any] | None) -> None:
    """See that what `take` found in a finished stage is still there; nothing is known of one of an older version.

    Raises:
        UserError: something is missing or altered.
    """
    if not files:
        return
    found = take(folder)
    changed = [name for name in files if found.get(name) != files[name]]
    if changed:
        names = [path for name in changed for path in (_broken(folder / SOFT) if name == SOFT else [folder / name])]
        raise UserError(
            f"{', '.join(map(str, names))}: missing or damaged since the stage was finished; restore it from a copy, "
            f"or delete the folder {folder} and call again: this stage is then done anew, and the others are kept"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(soft: Path) -> list[Path]:
    """The soft labels that are no whole archives, or the folder if something else is wrong with it."""
    return [path for path in sorted(soft.glob("*.npz")) if not zipfile.is_zipfile(path)] or [soft]
