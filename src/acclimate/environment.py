"""What a run was done with: versions, machine and commit, for the record."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("acclimate", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def environment() -> dict[str, Any]:
    """Versions of Python and of the packages that decide numbers, the machine, and the package's commit."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "system": platform.platform(),
        "git": commit_of(Path(__file__)),
    }


def commit_of(module: Path) -> str | None:
    """Commit of the checkout that a module is imported from; ends in ``-dirty`` if its folder is not as committed.

    Changes elsewhere, as those to the benchmarks' records, do not touch what a run comes to. ``None`` without git, and
    for an installed package, even where its environment lies in another project's checkout.
    """
    if _git(module.parent, "ls-files", "--error-unmatch", module.name) is None:
        return None
    commit = _git(module.parent, "rev-parse", "--short", "HEAD")
    changed = _git(module.parent, "status", "--porcelain", ".")
    if commit is None or changed is None:  # a status that took too long is not a clean one
        return None
    return commit + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in a folder, or ``None`` if it refuses or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if answer.returncode else answer.stdout.strip()


def version(package: str) -> str | None:
    """Version of an installed package, or ``None`` without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
