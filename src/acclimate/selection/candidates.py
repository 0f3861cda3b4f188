"""The networks that a run chooses from: files in a stage's folder until it is finished, then the stages' models."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acclimate import distributed
from acclimate.data.datasets import ImageSet
from acclimate.files import atomic, write_json
from acclimate.labels import LabelSpace
from acclimate.networks import Segmenter
from acclimate.networks.weights import load_model, save_model
from acclimate.run import CANDIDATES, SELECTION, Run, Stage
from acclimate.selection.agreement import Steadiness, look, steadiest, steadiness
from acclimate.selection.consensus import judge


def candidate_steps(iterations: int, count: int) -> list[int]:
    """The iterations after which a stage's network becomes a candidate: evenly spaced, the last among them."""
    count = min(count, iterations)
    return [math.ceil(number * iterations / count) for number in range(1, count + 1)]


@dataclass(frozen=True)
class Chooser:
    """Chooses a run's networks on unlabelled target images.

    A choice is a function of files alone and changes nothing that is learned, so that a continued run makes the same.
    """

    run: Run
    space: LabelSpace
    target: ImageSet
    device: torch.device

    def steps(self, stage: Stage, iterations: int) -> list[int]:
        """When a stage's network is a candidate: never where nothing is learned from the target, or nothing chosen."""
        wanted = self.run.recipe.selection
        learns = stage.name not in ("source", "ceiling")
        if not learns or wanted.candidates == 1 or (wanted.by == "last" and not wanted.keep):
            return []
        return candidate_steps(iterations, wanted.candidates)

    def write(self, path: Path, network: Segmenter) -> None:
        """Put a network into a file of the run."""
        if distributed.is_main():
            save_model(path, network, self.space, network.choices, {"width": self.run.recipe.data.width})

    def best_of_stage(self, stage: Stage, steps: Sequence[int]) -> int:
        """The step whose candidate is chosen; it becomes the stage's model, and what spoke for it is put on record."""
        if self.run.recipe.selection.by == "last":
            best, record = steps[-1], None
        else:
            distributed.barrier()  # until the last of them is written
            found = self._compare(self._load(self.run.candidate(stage.name, step)) for step in steps)
            best = steps[steadiest(found)]
            candidates = [{"step": step, **one._asdict()} for step, one in zip(steps, found, strict=True)]
            record = {"chosen": best, "candidates": candidates}
        if distributed.is_main():
            if record:
                write_json(self.run.path(stage.name) / SELECTION, record)
            copy(self.run.candidate(stage.name, best), self.run.model(stage.name))
        return best

    def best_stage(self, stages: Sequence[Stage]) -> str:
        """Name of the stage whose model is the run's; what each may reach on the target is put on record."""
        recipe = self.run.recipe
        wanted = recipe.selection
        of = {stage.name: (self.run.done(stage.name) or {})["inputs"] for stage in stages}
        asked = {"by": wanted.by, "images": wanted.images, "stages": of}
        known: dict[str, Any] | None = distributed.on_main(self.run.selection)
        if known and {key: known.get(key) for key in asked} == asked:
            return known["chosen"]
        networks = [self._load(self.run.model(name)) for name in of]
        estimates = judge(networks, self.target, wanted.images, recipe.data.width)
        best, agreements = len(of) - 1, {}
        if wanted.by != "last":
            found = self._compare(networks)
            best, agreements = steadiest(found), {name: one.agreement for name, one in zip(of, found, strict=True)}
        chosen = list(of)[best]
        if distributed.is_main():
            said = {name: e.to_dict(self.space.classes) for name, e in zip(of, estimates, strict=True)}
            record = {**asked, "chosen": chosen, "agreements": agreements, "estimates": said}
            write_json(self.run.folder / SELECTION, record)
        return chosen

    def discard(self, stage: Stage) -> None:
        """Delete the candidates of a finished stage, unless the recipe keeps them."""
        if distributed.is_main() and not self.run.recipe.selection.keep:
            shutil.rmtree(self.run.path(stage.name) / CANDIDATES, ignore_errors=True)

    def _compare(self, networks: Iterable[Segmenter]) -> list[Steadiness]:
        recipe = self.run.recipe
        how = self.target, recipe.selection.images, recipe.data.width
        return steadiness([look(network, *how) for network in networks])

    def _load(self, path: Path) -> Segmenter:
        return load_model(path)[0].to(self.device)


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)
