"""The run folder: what was asked for, what is finished, and what came out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate import distributed, inventory
from acclimate import recipe as recipes
from acclimate.data.forgiving import LEFT_OUT
from acclimate.data.softlabels import MANIFEST
from acclimate.environment import environment
from acclimate.errors import UserError
from acclimate.files import atomic, atomic_folder, explained, read_json, sweep, write_json
from acclimate.lock import LOCK, locked
from acclimate.recipe import Recipe

MODEL = "model.safetensors"
SCORES = "scores.json"
PROTOTYPES = "prototypes.safetensors"
DISTRIBUTION = "distribution.json"
SELECTION = "selection.json"
"""What was chosen without labels, and from what: in a stage's folder its candidates, in the run's its stages."""
CANDIDATES = "candidates"
_RECIPE = "recipe.yaml"
DONE = "done.json"


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
        folder: where the run lies, or will.
        recipe: what it does.

    Raises:
        UserError: the folder holds a run of another recipe (the difference is listed), or other files.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self._refuse_other()

    @contextmanager
    def held(self) -> Generator[list[str]]:
        """Work in the folder, which is made if need be and put in order after a kill; other runs are kept out.

        Yields:
            What was found damaged and will be made anew.

        Raises:
            UserError: another process is at work in it, it cannot be written, or a finished stage is damaged.
        """
        with locked(self.folder):
            self._refuse_other()  # again: now nobody can change it any more
            sweep(self.folder)
            with atomic(self.folder / _RECIPE) as temporary:
                temporary.write_text(recipes.to_yaml(self.recipe), encoding="utf-8")
            with explained(self.folder):
                (self.folder / "stages").mkdir(exist_ok=True)
                if not self._begun():
                    (self.folder / LEFT_OUT).unlink(missing_ok=True)  # settled for the recipe that now begins
            write_json(self.folder / "environment.json", environment())
            yield [f"{path}: cut or damaged; it is made anew" for path in self._mend()]

    @property
    def best(self) -> Path:
        """The adapted model."""
        return self.folder / MODEL

    @property
    def results(self) -> list[dict[str, Any]]:
        """One entry per finished stage with its name, title, minutes and, where there are labels, scores."""
        return read_json(self.folder / "results.json")

    def path(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.folder / "stages" / stage

    def model(self, stage: str) -> Path:
        """Model that a stage left behind."""
        return self.path(stage) / MODEL

    def done(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has on record, or None if it is not finished."""
        path = self.path(stage) / DONE
        return read_json(path) if path.exists() else None

    def candidates(self, stage: str) -> dict[int, Path]:
        """The networks that a stage might leave behind, by iteration; a finished one keeps them only if asked to."""
        return {int(path.stem): path for path in sorted((self.path(stage) / CANDIDATES).glob("[!.]*.safetensors"))}

    def candidate(self, stage: str, step: int) -> Path:
        """The network after so many iterations of a stage."""
        return self.path(stage) / CANDIDATES / f"{step:07d}.safetensors"

    def selection(self, stage: str = "") -> dict[str, Any] | None:
        """What was chosen in a stage, or among all of them, or None if nothing was."""
        path = (self.path(stage) if stage else self.folder) / SELECTION
        return read_json(path) if path.exists() else None

    def scores(self, stage: str) -> dict[str, Any] | None:
        """What a stage's model reached on labelled target images, or None if that was not measured."""
        path = self.path(stage) / SCORES
        return read_json(path) if path.exists() else None

    def shares(self, stage: str) -> dict[str, float]:
        """Share of each class among the pseudo labels that a stage began with.

        Raises:
            UserError: they are not on record, or damaged.
        """
        return read_json(self.path(stage) / DISTRIBUTION)

    def finish(self, stage: Stage, **record: Any) -> None:
        """Put a stage on record as finished; written last, so that it vouches for all the rest."""
        if not distributed.is_main():
            return
        content = {"name": stage.name, "title": stage.title, **record, "inputs": self.digest(stage)}
        files = inventory.take(self.path(stage.name))
        write_json(self.path(stage.name) / DONE, {**content, "files": files})

    def digest(self, stage: Stage) -> str:
        """Fingerprint of everything that a stage's result depends on, its parent included."""
        flat = recipes.flatten(recipes.to_dict(self.recipe))
        chosen = {key: value for key, value in flat.items() if key.startswith(stage.sections)}
        inputs = {"recipe": chosen, "parent": (self.done(stage.parent) or {}).get("inputs") if stage.parent else None}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def take_over(self, stage: Stage, other: Path) -> bool:
        """Copy a finished stage from another run if it had the same inputs; tells whether it did.

        Raises:
            UserError: it had, and is damaged.
        """
        theirs = other / "stages" / stage.name
        if not (theirs / DONE).exists():
            return False
        record = read_json(theirs / DONE)
        if record["inputs"] != self.digest(stage):
            return False
        inventory.verify(theirs, record.get("files"))
        with atomic_folder(self.path(stage.name)) as temporary:
            shutil.copytree(theirs, temporary)
        return True

    def _mend(self) -> list[Path]:
        """Delete what a power cut may have cut and can be made anew, and see that finished stages are whole."""
        removed = [path for path in (self.folder / SELECTION,) if _remove_cut(path)]
        for folder in sorted(self.folder.glob("stages/*")):
            removed += [path for path in (folder / DONE, folder / SCORES) if _remove_cut(path)]
            if (folder / DONE).exists():
                inventory.verify(folder, read_json(folder / DONE).get("files"))
            else:
                pass_over_target = (folder / inventory.SOFT / MANIFEST, folder / DISTRIBUTION)
                removed += [path for path in pass_over_target if _remove_cut(path)]
        return removed

    def _begun(self) -> bool:
        """Whether any stage has left a trace; a run that was refused before that belongs to no recipe yet."""
        stages = self.folder / "stages"
        return stages.is_dir() and any(stages.iterdir())

    def _refuse_other(self) -> None:
        known = self.folder / _RECIPE
        if not known.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(map(_is_foreign, self.folder.iterdir()))):
                raise UserError(
                    f"{self.folder}: exists and is not a run folder; choose a new or empty folder for --out"
                )
            return
        if recipes.to_yaml(self.recipe).encode().startswith(known.read_bytes()):
            return  # the same, or as much as a power cut left of it
        changed = recipes.difference(recipes.load(known), self.recipe)
        if changed and self._begun():
            lines = "\n".join(f"  {key}: {before!r} there, {after!r} now" for key, (before, after) in changed.items())
            raise UserError(
                f"{self.folder}: belongs to another recipe:\n{lines}\n"
                "Give another --out (with --reuse of this folder the stages that do not depend on the change "
                "are taken over), or go on with the recipe it has: "
                f"acclimate adapt {self.folder / 'recipe.yaml'} --out {self.folder}"
            )


def _is_foreign(path: Path) -> bool:
    """Whether a file is none of the first that a run makes; it may have been killed before it had a recipe."""
    return path.name != LOCK and not path.name.startswith(f".{_RECIPE}.")


def _remove_cut(path: Path) -> bool:
    """Delete a file if it is no whole JSON; tells whether it was there and is deleted."""
    try:
        if not path.exists() or read_json(path):
            return False
    except UserError:
        pass
    path.unlink()
    return True
