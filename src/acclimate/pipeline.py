"""The whole road: from labelled source images to a model for the target, stage by stage."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from acclimate import distributed
from acclimate import recipe as recipes
from acclimate.check import check
from acclimate.data import colour
from acclimate.data.datasets import LabelledSet, default_ids, evenly_spaced, open_labelled, open_space
from acclimate.data.forgiving import leave_out, open_target
from acclimate.data.seeding import Schedule
from acclimate.data.softlabels import MANIFEST, SoftLabels
from acclimate.data.views import SourceViews, TargetViews, loader
from acclimate.errors import UserError
from acclimate.evaluation import evaluate
from acclimate.files import atomic, expanded, write_json
from acclimate.inference import pick_device, predict_labels
from acclimate.journal import Journal
from acclimate.mistakes import absent_labels
from acclimate.networks import Segmenter, build
from acclimate.networks.execution import require_compiler
from acclimate.networks.mean import mean_network
from acclimate.networks.weights import load_model, require_space
from acclimate.pictures import overlay
from acclimate.recipe import Recipe
from acclimate.results import PICTURED, report_results
from acclimate.run import DISTRIBUTION, PROTOTYPES, SCORES, Run, Stage
from acclimate.selection import Chooser, copy
from acclimate.stages.distill import DistillTask
from acclimate.stages.initialise import Initial, label_target
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.stages.task import Task
from acclimate.stages.warmup import SupervisedTask, WarmupTask
from acclimate.target_statistics import measure_statistics
from acclimate.training import Plan, discard, fit, require_parts, step_seed

_ALWAYS = ("seed", "precision", "network.", "optimizer.", "augment.flip", "data.classes", "data.width", "data.crop",
           "data.scale")  # fmt: skip
_CHOICE = ("selection.by", "selection.candidates", "selection.images")


Batches = Callable[[int], Iterator[Any]]


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe asks for, in order."""
    domains = ("data.source.", "data.target.", "data.on_bad_image")
    if recipe.start:
        stages = [Stage("start", "start", None, (*_ALWAYS, "start"))]
    else:
        stages = [Stage("source", "source only", None, (*_ALWAYS, "data.source.", "source."))]
        if recipe.warmup.iterations:
            stages.append(Stage("warmup", "warm-up", "source", (*domains, "warmup.", *_CHOICE)))
    if recipe.selflabel.iterations:
        stages.append(Stage("initialise", "initialisation", stages[-1].name, domains))
        stages.append(Stage("selflabel", "stage 1", "initialise", ("augment.", "selflabel.", *_CHOICE)))
    for number in range(1, recipe.distill.rounds + 1):
        sections = (*domains, "augment.", "distill.", *_CHOICE)
        stages.append(Stage(f"distill-{number}", f"stage {number + 1}", stages[-1].name, sections))
    if recipe.selection.average and len(line_of(stages, recipe)) > 1:
        stages.append(Stage("average", "weights averaged", stages[-1].name, ()))
    if recipe.data.ceiling.path:
        stages.append(Stage("ceiling", "ceiling", None, (*_ALWAYS, "data.ceiling.", "ceiling.")))
    return stages


def line_of(stages: list[Stage], recipe: Recipe) -> list[str]:
    """The last of these stages and those before it, as far back as each student went on from the one before.

    Their networks differ by training alone, so that the mean of their weights is a network too.
    """
    *before, last = (stage for stage in stages if stage.name not in ("average", "ceiling"))
    return [*(line_of(before, recipe) if goes_on(last, recipe) else []), last.name]


def goes_on(stage: Stage, recipe: Recipe) -> bool:
    """Whether a stage is a round of distillation that trains the model before it further, instead of a fresh one."""
    student = recipe.distill.student
    chained = student == "chained" and stage.name != "distill-1"
    return stage.name.startswith("distill-") and (student == "previous" or chained)


def adapt(recipe: Recipe, out: Path, reuse: Path | None = None, journal: Journal | None = None) -> Run:
    """Run every stage of a recipe that is not finished yet; returns the run.

    Args:
        recipe: what to do, with the data folders in it.
        out: run folder; given again, the run goes on where it stopped.
        reuse: another run folder, from which finished stages with the same inputs are taken over.
        journal: where progress is told; default the console.

    Raises:
        UserError: the recipe, the data or the folder is wrong (found before training), or training diverged.
    """
    if reuse is not None and not (reuse / "recipe.yaml").exists():
        raise UserError(f"{reuse}: not a run folder (it has no recipe.yaml), so nothing can be reused from it")
    with distributed.processes(recipe.device):
        return _adapt(recipe, out, reuse, journal)


def _adapt(recipe: Recipe, out: Path, reuse: Path | None, journal: Journal | None) -> Run:
    findings = distributed.on_main(lambda: check(recipe))
    run = distributed.on_main(lambda: Run(out, recipe))
    with ExitStack() as stack:
        damages = distributed.on_main(lambda: stack.enter_context(run.held()))
        with distributed.main_first():
            if recipe.data.on_bad_image == "skip":
                leave_out(findings.unreadable, out)
        return _walk(run, reuse, journal, [*findings.warnings, *damages])


def _walk(run: Run, reuse: Path | None, journal: Journal | None, warnings: list[str]) -> Run:
    recipe, out = run.recipe, run.folder
    events = out / "tensorboard" if recipe.tensorboard else None
    journal = journal or Journal(out / "metrics.jsonl", tensorboard=events)
    journal.mend()
    for warning in warnings:
        journal.warn(warning)
    work = Work(run, journal)
    stages = stages_of(recipe)
    work.rehearse([stage for stage in stages if not run.done(stage.name)])
    for stage in stages:
        if run.done(stage.name):
            journal.say(f"{stage.title}: finished before")
            work.tidy(stage)
        elif reuse is not None and distributed.on_main(partial(run.take_over, stage, reuse)):
            journal.adopt(stage.name, reuse / "metrics.jsonl")
            journal.say(f"{stage.title}: taken over from {reuse}")
        else:
            journal.say(f"{stage.title} …")
            work.perform(stage)
        distributed.barrier()
        if stage.name != "initialise":
            work.measure(stage)
    chosen = work.chooser.best_stage([stage for stage in stages if stage.name not in ("initialise", "ceiling")])
    if distributed.is_main():
        copy(run.model(chosen), run.best)
        report_results(run, stages, work.val or work.target, work.device, journal)
    distributed.barrier()
    return run


class Work:
    """Does the stages' work; holds what they share: the data and the device.

    Only ``source`` and ``ceiling`` can open labels to learn from, ``val`` to measure with; ``target`` has none.
    """

    def __init__(self, run: Run, journal: Journal) -> None:
        self.run, self.journal, self.recipe = run, journal, run.recipe
        self.device = pick_device(self.recipe.device)
        data = self.recipe.data
        self.space = open_space(data)
        self.source = open_labelled(data.source, "source", self.space, default_ids(data))
        self.target = open_target(data, run.folder)
        self.chooser = Chooser(run, self.space, self.target, self.device)
        self.val = open_labelled(data.val, "val", self.space, default_ids(data)) if data.val.path else None

    def rehearse(self, stages: list[Stage]) -> None:
        """See that these stages can be done; make the networks they begin with, so that no file is missed later."""
        names = {stage.name for stage in stages}
        for section in sorted({name.partition("-")[0] for name in names} - {"start", "initialise", "average"}):
            require_parts(section, getattr(self.recipe, section).batch, self.recipe.optimizer.accumulate)
        if names and self.recipe.network.compile:
            require_compiler(self.device)
        if names & {"source", "ceiling"}:
            self._fresh()
        if any(name.startswith("distill-") for name in names) and self.recipe.distill.student != "previous":
            self._student()
        if "start" in names:
            self._start_model()

    def perform(self, stage: Stage) -> None:
        """Do a stage and put it on record."""
        started = time.monotonic()
        with distributed.main_first():
            self.run.path(stage.name).mkdir(exist_ok=True)
            (self.run.path(stage.name) / SCORES).unlink(missing_ok=True)  # of a model that is made anew
        if stage.name in ("initialise", "start", "average"):
            self._make(stage)
            model = {} if stage.name == "initialise" else {"iterations": 0}
            self.run.finish(stage, minutes=(time.monotonic() - started) / 60, **model)
            return
        torch.manual_seed(step_seed(self.recipe.seed, stage.name, -1))
        task, batches, iterations = self._prepare(stage)
        prepared = time.monotonic() - started
        steps = self.chooser.steps(stage, iterations)

        def after(step: int) -> None:
            if step in steps:
                self._leave(self.run.candidate(stage.name, step), task, stage)

        plan = Plan(stage.name, iterations, self.run.path(stage.name), after)
        seconds = fit(task, batches, plan, self.recipe, self.journal)
        if isinstance(task, SelfLabelTask) and distributed.is_main():
            _write_prototypes(self.run.path(stage.name), task.clusters.prototypes.average_KD)
        if steps:
            self.journal.say(f"{stage.title}: keeps iteration {self.chooser.best_of_stage(stage, steps)}")
        else:
            self._leave(self.run.model(stage.name), task, stage)
        self.run.finish(stage, minutes=(prepared + seconds) / 60, iterations=iterations)
        self.tidy(stage)
        self._picture(stage, iterations)

    def _make(self, stage: Stage) -> None:
        """Do a stage that learns nothing."""
        match stage.name:
            case "initialise":
                self._initialise(stage)
            case "start":
                self.chooser.write(self.run.model(stage.name), self._start_model())
            case _:
                line = line_of(stages_of(self.recipe), self.recipe)
                self.chooser.write(self.run.model(stage.name), mean_network([self._of(name) for name in line]))

    def _picture(self, stage: Stage, iterations: int) -> None:
        """A few target images for TensorBoard, each beside what the stage's model sees in it."""
        if not self.journal.pictured:
            return
        network = self._of(stage.name).to(self.device)
        for index in evenly_spaced(PICTURED, len(self.target)):
            image_HWC = self.target.image(index)
            seen_HWC = overlay(image_HWC, predict_labels(network, image_HWC, self.recipe.data.width), self.space)
            pair_HWC = np.concatenate([image_HWC, seen_HWC], axis=1)
            self.journal.picture(stage.name, iterations, f"target {self.target.samples[index].name}", pair_HWC)

    def _leave(self, path: Path, task: Task, stage: Stage) -> None:
        """Put what a task keeps into a file; if it is for the target, with the target's statistics."""
        self.chooser.write(path, task.kept)
        has_them = task.steady or stage.name in ("source", "ceiling")
        if self._targets_statistics and not has_them and distributed.is_main():
            self.chooser.write(path, self._measured(load_model(path)[0]))  # training goes on with its own

    def _measured(self, network: Segmenter) -> Segmenter:
        measure_statistics(network.to(self.device), self.target, self.recipe.data.width)
        return network

    @property
    def _targets_statistics(self) -> bool:
        return self.recipe.network.statistics == "target"

    @property
    def _origin(self) -> str:
        """The stage whose model's labels begin stage 1, and that goes on from there."""
        return "start" if self.recipe.start else "warmup" if self.recipe.warmup.iterations else "source"

    def _for_target(self, stage: str) -> Segmenter:
        """The model of a finished stage as one that keeps its statistics begins with it: with the target's."""
        network = self._of(stage)
        never_measured = stage in ("start", "source")
        return self._measured(network) if self._targets_statistics and never_measured else network

    def tidy(self, stage: Stage) -> None:
        """Delete what a finished stage needs no more."""
        discard(self.run.path(stage.name))
        self.chooser.discard(stage)

    def measure(self, stage: Stage) -> None:
        """Put a stage's scores on record, if there are labelled target images and it has none on these yet."""
        on = recipes.to_dict(self.recipe.data.val)
        if self.val is None or (self.run.scores(stage.name) or {}).get("on") == on:
            return
        network = self._of(stage.name).to(self.device)
        found = evaluate(network, self.val, self.space, self.recipe.data.width)
        scores = found.to_dict() | self._oracle(stage, self.val)
        self.journal.forget(lambda record: record["stage"] == stage.name and "mean_iou" in record)
        self.journal.record(stage.name, (self.run.done(stage.name) or {})["iterations"], mean_iou=scores["mean_iou"])
        self.journal.curves(
            stage.name, (self.run.done(stage.name) or {})["iterations"],
            {f"iou/{name}": iou for name, iou in scores["iou"].items() if iou is not None},
        )  # fmt: skip
        self.journal.sync()
        if distributed.is_main():
            write_json(self.run.path(stage.name) / SCORES, {"on": on, **scores, "confusion": found.confusion})
        self.journal.say(f"{stage.title}: {100 * scores['mean_iou']:.1f} mIoU on {scores['images']} images")

    def _oracle(self, stage: Stage, val: LabelledSet) -> dict[str, Any]:
        """What the candidates that were kept reach on labelled target images, for the report alone."""
        reached = {}
        for step, path in self.run.candidates(stage.name).items():
            network = load_model(path)[0].to(self.device)
            reached[step] = evaluate(network, val, self.space, self.recipe.data.width).mean_iou
        if not reached:
            return {}
        best = max(reached, key=lambda step: reached[step])
        return {"candidates": reached, "oracle": {"step": best, "mean_iou": reached[best]}}

    def _start_model(self) -> Segmenter:
        """The model that the recipe starts from."""
        path = expanded(self.recipe.start)
        network, space, _ = load_model(path)
        require_space(space, self.space, path)
        return network

    def _prepare(self, stage: Stage) -> tuple[Task, Batches, int]:
        """The stage's task on its device, its batches from any step on, and its length."""
        match stage.name.partition("-")[0]:
            case "source":
                return self._supervised(stage, self.source, self.recipe.source)
            case "ceiling":
                return self._supervised(stage, self._ceiling(), self.recipe.ceiling)
            case "warmup":
                return self._warmup(stage)
            case "selflabel":
                return self._selflabel(stage)
            case _:
                return self._distill(stage)

    def _supervised(
        self, stage: Stage, labelled: LabelledSet, section: recipes.Supervised
    ) -> tuple[Task, Batches, int]:
        task = SupervisedTask(self._fresh(), self.recipe, section).to(self.device)
        return task, self._sources(stage, labelled, section, recolour=False), section.iterations

    def _ceiling(self) -> LabelledSet:
        """The labelled target images of the reference model: opened here, for this one stage, and nowhere else."""
        data = self.recipe.data
        return open_labelled(data.ceiling, "ceiling", self.space, default_ids(data))

    def _warmup(self, stage: Stage) -> tuple[Task, Batches, int]:
        section = self.recipe.warmup
        task = WarmupTask(self._of(stage.parent), self.recipe).to(self.device)
        views = self._target_views(stage, task, None, strong=False)
        return task, self._pairs(stage, section, views), section.iterations

    def _initialise(self, stage: Stage) -> None:
        """Pseudo labels, class distribution and prototypes of the target under the model so far."""
        initial = self._label_target(stage, self._for_target(self._origin), self.recipe.selflabel.flip)
        if distributed.is_main():
            _write_prototypes(self.run.path(stage.name), initial.proto_KD)

    def _selflabel(self, stage: Stage) -> tuple[Task, Batches, int]:
        section, folder = self.recipe.selflabel, self.run.path("initialise")
        initial = Initial(self._distribution("initialise"), load_file(folder / PROTOTYPES)["prototypes"])
        task = SelfLabelTask(self._for_target(self._origin), initial, self.recipe).to(self.device)
        views = self._target_views(stage, task, SoftLabels.open(folder / "soft", self._target_names()))
        views = dataclasses.replace(views, whole=section.teacher_view == "whole")
        return task, self._pairs(stage, section, views), section.iterations

    def _distill(self, stage: Stage) -> tuple[Task, Batches, int]:
        section, folder = self.recipe.distill, self.run.path(stage.name)
        assert stage.parent is not None
        soft, teacher = folder / "soft", self._for_target(stage.parent)
        if not ((soft / MANIFEST).exists() and (folder / DISTRIBUTION).exists()):
            self._label_target(stage, teacher, section.flip)
        onward = goes_on(stage, self.recipe)
        student = deepcopy(teacher) if onward else self._student()
        live = teacher.to(self.device) if section.teacher == "live" else None
        task = DistillTask(student, self._distribution(stage.name), self.recipe, live, onward).to(self.device)
        views = self._target_views(stage, task, SoftLabels.open(soft, self._target_names()))
        return task, self._pairs(stage, section, views), section.iterations

    def _label_target(self, stage: Stage, teacher: Segmenter, flip: bool) -> Initial:
        folder, width = self.run.path(stage.name) / "soft", self.recipe.data.width
        store = SoftLabels(folder, tuple(self._target_names()), self.space.classes, teacher.grid, width)
        with self.journal.stage(f"{stage.name}/label", len(self.target)):
            initial = label_target(teacher.to(self.device), self.target, store, flip, self.journal.advance)
        shares = dict(zip(self.space.classes, initial.distribution_K.tolist(), strict=True))
        distributed.on_main(lambda: write_json(self.run.path(stage.name) / DISTRIBUTION, shares))
        for doubt in absent_labels(stage.title, shares, stage.parent or ""):
            self.journal.warn(doubt)
        return initial

    def _distribution(self, stage: str) -> torch.Tensor:
        """Share of each class, (K,), among the pseudo labels that a stage began with."""
        shares = self.run.shares(stage)
        return torch.tensor([shares[name] for name in self.space.classes], dtype=torch.float64)

    def _student(self) -> Segmenter:
        """A fresh student of a distillation."""
        own, network = self.recipe.distill, self.recipe.network
        weights = own.weights or network.weights
        return build(dataclasses.replace(network, weights=weights, extra_norm=own.extra_norm), len(self.space))

    def _fresh(self) -> Segmenter:
        return build(self.recipe.network, len(self.space))

    def _of(self, stage: str | None) -> Segmenter:
        """The model that a finished stage left behind."""
        assert stage is not None
        return load_model(self.run.model(stage))[0]

    def _target_names(self) -> list[str]:
        return [sample.name for sample in self.target.samples]

    def _target_views(self, stage: Stage, task: Task, soft: SoftLabels | None, strong: bool = True) -> TargetViews:
        recipe = self.recipe
        return TargetViews(self.target, recipe.data, recipe.augment, recipe.seed, stage.name, soft, task.grid, strong)

    @cached_property
    def _colours(self) -> tuple[np.ndarray, np.ndarray]:
        """LAB statistics of all source and all target images."""
        folder = self.run.folder
        with distributed.main_first():  # the others read what it has written
            return (
                colour.collect(self.source, folder / "colour-source.npz"),
                colour.collect(self.target, folder / "colour-target.npz"),
            )

    def _sources(self, stage: Stage, labelled: LabelledSet, section: recipes.Section, recolour: bool) -> Batches:
        recipe = self.recipe
        colours = self._colours if recolour else None
        jitter = isinstance(section, recipes.Warmup) and section.jitter
        views = SourceViews(labelled, recipe.data, recipe.augment, recipe.seed, stage.name, colours, jitter)
        return self._batches(views, f"{stage.name}/source", section)

    def _pairs(self, stage: Stage, section: recipes.PairSection, target: TargetViews) -> Batches:
        sources = self._sources(stage, self.source, section, section.colour)
        targets = self._batches(target, f"{stage.name}/target", section)
        return lambda step: zip(sources(step), targets(step), strict=True)

    def _batches(self, views: SourceViews | TargetViews, stream: str, section: recipes.Section) -> Batches:
        schedule = Schedule(len(views.images), self.recipe.seed, stream)
        workers = self.recipe.data.workers
        first = distributed.rank() * distributed.part(section.batch)
        place = slice(first, first + distributed.part(section.batch))
        pin = self.device.type == "cuda"
        return lambda step: loader(views, schedule, section.batch, step, section.iterations, workers, place, pin)


def _write_prototypes(folder: Path, proto_KD: torch.Tensor) -> None:
    with atomic(folder / PROTOTYPES) as temporary:
        save_file({"prototypes": proto_KD.detach().cpu().contiguous()}, temporary)
