"""The run folder: what was asked for, what is finished, and what came out."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from acclimate import recipe as recipes
from acclimate.errors import UserError
from acclimate.files import atomic, read_json, write_json
from acclimate.recipe import Recipe

MODEL = "model.safetensors"
SCORES = "scores.json"
_DONE = "done.json"


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline and what its result depends on."""

    name: str
    """Name of its folder."""
    title: str
    """Name in tables and pictures."""
    parent: str | None
    """Stage whose result it starts from."""
    sections: tuple[str, ...]
    """Dotted recipe keys that its result depends on beside those of its parent."""


class Run:
    """A folder that tells its own story and can be continued.

    ``recipe.yaml`` (resolved), ``environment.json``, ``metrics.jsonl``, a folder per stage under
    ``stages/``, and at the end ``model.safetensors``, ``results.json`` and ``comparison.png``.

    Args:
        folder: where the run lies; created if need be.
        recipe: what it does.

    Raises:
        UserError: the folder holds a run of another recipe (the difference is listed), or other files.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        known = folder / "recipe.yaml"
        if known.exists():
            self._refuse_other(recipes.load(known))
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists and is not a run folder; choose a new or empty folder for --out")
        try:
            (folder / "stages").mkdir(parents=True, exist_ok=True)
            with atomic(known) as temporary:
                temporary.write_text(recipes.to_yaml(recipe), encoding="utf-8")
            write_json(folder / "environment.json", environment())
        except OSError as error:
            raise UserError(f"{folder}: the run folder cannot be written: {error.strerror}") from None

    @property
    def best(self) -> Path:
        """The adapted model."""
        return self.folder / MODEL

    @property
    def results(self) -> list[dict[str, Any]]:
        """One entry per finished stage: name, title, minutes and, where there are labels, scores."""
        return read_json(self.folder / "results.json")

    def path(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.folder / "stages" / stage

    def model(self, stage: str) -> Path:
        """Model that a stage left behind."""
        return self.path(stage) / MODEL

    def done(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has on record, or None if it is not finished."""
        path = self.path(stage) / _DONE
        return read_json(path) if path.exists() else None

    def scores(self, stage: str) -> dict[str, Any] | None:
        """What a stage's model reached on labelled target images, or None if that was not measured."""
        path = self.path(stage) / SCORES
        return read_json(path) if path.exists() else None

    def finish(self, stage: Stage, **record: Any) -> None:
        """Put a stage on record as finished; written last, so that it vouches for all the rest."""
        content = {"name": stage.name, "title": stage.title, **record, "inputs": self.digest(stage)}
        write_json(self.path(stage.name) / _DONE, content)

    def digest(self, stage: Stage) -> str:
        """Fingerprint of everything that a stage's result depends on, its parent included."""
        flat = recipes.flatten(recipes.to_dict(self.recipe))
        chosen = {key: value for key, value in flat.items() if key.startswith(stage.sections)}
        inputs = {"recipe": chosen, "parent": (self.done(stage.parent) or {}).get("inputs") if stage.parent else None}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def take_over(self, stage: Stage, other: Path) -> bool:
        """Copy a finished stage from another run if it had the same inputs; tells whether it did."""
        theirs = other / "stages" / stage.name
        if not (theirs / _DONE).exists() or read_json(theirs / _DONE)["inputs"] != self.digest(stage):
            return False
        ours = self.path(stage.name)
        shutil.rmtree(ours, ignore_errors=True)
        shutil.copytree(theirs, ours.with_name(f".{stage.name}.tmp"), dirs_exist_ok=True)
        ours.with_name(f".{stage.name}.tmp").rename(ours)
        return True

    def _refuse_other(self, old: Recipe) -> None:
        changed = recipes.difference(old, self.recipe)
        if changed:
            lines = "\n".join(f"  {key}: {before!r} there, {after!r} now" for key, (before, after) in changed.items())
            raise UserError(
                f"{self.folder}: belongs to another recipe:\n{lines}\n"
                "Give another --out (with --reuse of this folder the stages that do not depend on the change "
                "are taken over), or go on with the recipe it has: "
                f"acclimate adapt {self.folder / 'recipe.yaml'} --out {self.folder}"
            )


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = ("acclimate", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "machine": platform.machine(),
        "system": platform.platform(),
        "git": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that the package is imported from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
