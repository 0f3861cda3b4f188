"""What a run folder tells, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from acclimate import recipe as recipes
from acclimate.errors import UserError
from acclimate.files import read_json
from acclimate.labels import LabelSpace
from acclimate.networks.weights import load_model
from acclimate.pipeline import stages_of
from acclimate.results import row_of
from acclimate.run import DONE, SCORES, SELECTION, Run

_REMEDY = "delete it and call adapt again to have it made anew"


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it; stages that are not finished are left out."""

    run: Run
    name: str
    """Of the folder, for headings."""
    rows: list[dict[str, Any]]
    """One per finished stage, as in ``results.json``."""
    metrics: list[dict[str, Any]]
    environment: dict[str, Any]

    @cached_property
    def space(self) -> LabelSpace:
        """The classes: the model's, since a label map may lie elsewhere by now."""
        return load_model(self.run.model(self.adapted["name"]))[1]

    @cached_property
    def base(self) -> dict[str, Any] | None:
        """The row of what adaptation began with: source only, or the model that was given."""
        return next((row for row in self.rows if row["name"] in ("start", "source")), None)

    @cached_property
    def ceiling(self) -> dict[str, Any] | None:
        """The row of the model trained with target labels."""
        return next((row for row in self.rows if row["name"] == "ceiling"), None)

    @cached_property
    def adapted(self) -> dict[str, Any]:
        """The row of the run's model; of a run that goes on, of the last stage so far."""
        own = [row for row in self.rows if row["name"] != "ceiling"] or self.rows
        return next((row for row in own if row.get("chosen")), own[-1])

    @property
    def measured(self) -> bool:
        """Whether there are labelled target images, and the run's model was measured on them."""
        return "mean_iou" in self.adapted

    def row(self, name: str) -> dict[str, Any] | None:
        """The row of a stage, if it is finished."""
        return next((row for row in self.rows if row["name"] == name), None)

    def confusion(self, name: str) -> list[list[int]] | None:
        """Pixels of the class of the row that a stage's model took for that of the column; None if not on record."""
        matrix = (self.run.scores(name) or {}).get("confusion") if self.measured else None
        size = len(self.space)
        if matrix is not None and (len(matrix) != size or any(len(row) != size for row in matrix)):
            raise UserError(f"{self.run.path(name) / SCORES}: damaged, its confusion is not {size}x{size}; {_REMEDY}")
        return matrix

    def frequency(self) -> dict[str, float]:
        """Share of each class in the target, the most frequent first: of its labels, else of its pseudo labels."""
        found: dict[str, float] = dict.fromkeys(self.space.classes, 0.0)
        if self.measured and self.adapted.get("pixels"):
            found |= self.adapted["pixels"]
        elif self.run.done("initialise"):
            found |= self.run.shares("initialise")
        total = sum(found.values()) or 1
        return {name: found[name] / total for name in sorted(found, key=lambda name: -found[name])}


def open_record(folder: Path) -> Record:
    """What the run in a folder tells so far.

    Raises:
        UserError: not a run folder, nothing in it is finished, or a file in it is damaged.
    """
    path = folder / "recipe.yaml"
    if not path.exists():
        raise UserError(f"{folder}: not a run folder (it has no recipe.yaml); give the folder that adapt wrote to")
    run = Run(folder, recipes.load(path))
    stages = [stage for stage in stages_of(run.recipe) if (run.path(stage.name) / DONE).exists()]
    _require(folder / SELECTION, {"chosen", "estimates"})
    for stage in stages:
        _check(run, stage.name)
    rows = [row_of(run, stage) for stage in stages if stage.name != "initialise"]
    if not rows:
        raise UserError(f"{folder}: no stage is finished yet, so there is nothing to report; let adapt go on first")
    environment = folder / "environment.json"
    name = folder.resolve().name
    return Record(run, name, rows, _metrics(folder), read_json(environment) if environment.exists() else {})


def _check(run: Run, stage: str) -> None:
    """See that what a finished stage has on record holds what a report needs."""
    folder = run.path(stage)
    _require(folder / DONE, {"name", "title", "minutes"} | ({"iterations"} if stage != "initialise" else set()))
    _require(folder / SCORES, {"mean_iou", "iou", "images"})
    _require(folder / SELECTION, {"chosen", "candidates"})
    if stage != "initialise" and not run.model(stage).exists():
        raise UserError(
            f"{run.model(stage)}: not found, though the stage is finished; copy it back, or delete the folder "
            f"{folder} and call adapt again"
        )


def _require(path: Path, keys: set[str]) -> None:
    """See that a JSON file, if there is one, is an object with these keys."""
    if not path.exists():
        return
    content = read_json(path)
    missing = keys - content.keys() if isinstance(content, dict) else keys
    if missing:
        raise UserError(f"{path}: damaged, {', '.join(sorted(missing))} missing; {_REMEDY}")


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole records of ``metrics.jsonl``: a kill may have cut one, and nothing else depends on them."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"stage", "step"} <= record.keys():
            found.append(record)
    return found
