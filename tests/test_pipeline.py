"""The whole road on a tiny benchmark: every stage, continued, repeated, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from acclimate import pipeline, recipe, training
from acclimate.data import datasets, streets
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.networks import deeplab
from acclimate.networks.weights import load_model
from acclimate.pipeline import adapt, line_of, stages_of
from acclimate.run import Run

STAGES = ["source", "warmup", "initialise", "selflabel", "distill-1", "distill-2", "average", "ceiling"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    streets.write(folder, source=5, target=4, val=2, seed=3, size=(48, 80))
    return folder


def tiny(data: Path, **changes: Any) -> recipe.Recipe:
    overrides = [f"data.{role}.path={data / role}" for role in ("source", "target", "val", "ceiling")]
    overrides += [
        "data.classes=streets", "data.width=80", "data.crop=[32, 48]", "data.workers=0", "log_every=1", "save_every=2",
        "network.backbone=test_resnet.r160_in1k", "network.weights=none", "network.channels=16", "selflabel.bank=256",
        *(f"{stage}.iterations=3" for stage in ("source", "warmup", "selflabel", "distill", "ceiling")),
        *(f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill", "ceiling")),
        *(f"{key.replace('__', '.')}={value}" for key, value in changes.items()),
    ]  # fmt: skip
    return recipe.load("demo", overrides)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return adapt(tiny(data), tmp_path_factory.mktemp("run"))


def weights(run: Run, stage: str) -> bytes:
    return run.model(stage).read_bytes()


def recorded(run: Run, stage: str) -> list[str]:
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["stage"] == stage]


def test_every_stage_leaves_a_model_a_row_and_a_record(finished: Run) -> None:
    assert [stage.name for stage in stages_of(finished.recipe)] == STAGES
    rows = json.loads((finished.folder / "results.json").read_text())
    assert [row["name"] for row in rows] == [name for name in STAGES if name != "initialise"]
    for row in rows:
        assert 0 <= row["mean_iou"] <= 1 and row["minutes"] > 0
        assert row["iterations"] == (0 if row["name"] == "average" else 3)
        _, space, metadata = load_model(finished.model(row["name"]))
        assert space.name == "streets" and metadata["width"] == 80
    assert len({weights(finished, row["name"]) for row in rows}) == len(rows)
    (chosen,) = (row["name"] for row in rows if row.get("chosen"))
    assert finished.best.read_bytes() == weights(finished, chosen)
    records = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert {record["stage"] for record in records} == set(STAGES) - {"initialise"}
    assert not list(finished.folder.rglob("*.tmp")) and not list(finished.folder.rglob(training.CHECKPOINT))


def test_the_comparison_shows_two_photos_with_all_stages(finished: Run) -> None:
    with Image.open(finished.folder / "comparison.png") as picture:
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 100


def test_the_initialisation_is_of_all_target_images(finished: Run) -> None:
    folder = finished.path("initialise")
    shares = json.loads((folder / "distribution.json").read_text())
    assert sum(shares.values()) == pytest.approx(1)
    assert len(list((folder / "soft").glob("*.npz"))) == 4


def test_a_finished_run_is_not_done_again(
    finished: Run, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "fit", lambda *_: pytest.fail("trained again"))
    adapt(tiny(data, log_every=7), finished.folder)
    assert capsys.readouterr().out.count("finished before") == len(STAGES)


def test_the_same_recipe_gives_the_same_weights_to_the_bit(finished: Run, data: Path, tmp_path: Path) -> None:
    again = adapt(tiny(data, data__workers=1), tmp_path / "again")
    for stage in STAGES:
        if stage != "initialise":
            assert weights(again, stage) == weights(finished, stage), stage
    other = adapt(tiny(data, seed=1, distill__rounds=0), tmp_path / "other")
    assert weights(other, "source") != weights(finished, "source")


@pytest.mark.parametrize("killed_in", ["source", "warmup", "selflabel", "distill-1", "ceiling"])
def test_a_killed_run_goes_on_to_the_same_weights(
    finished: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    out = tmp_path / "run"
    if killed_in != "source":  # what was finished before the kill is the same as in the finished run
        out.mkdir()
        for name in ("recipe.yaml", "metrics.jsonl"):
            shutil.copy(finished.folder / name, out / name)
        for stage in STAGES[: STAGES.index(killed_in)]:
            shutil.copytree(finished.path(stage), out / "stages" / stage)

    class Killed(BaseException):
        pass

    def advance(self: Journal, step: int) -> None:
        if step == 3 and (out / "stages" / killed_in / training.CHECKPOINT).exists():
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "advance", advance)
        adapt(tiny(data), out)
    assert (out / "stages" / killed_in / training.CHECKPOINT).exists()
    if killed_in == "distill-1":
        shutil.rmtree(out / "stages" / killed_in / "soft")  # as the remedy for damaged soft labels says
    resumed = adapt(tiny(data), out)
    for stage in ("source", killed_in, "distill-2", "ceiling"):
        assert weights(resumed, stage) == weights(finished, stage), stage
    assert recorded(resumed, killed_in) == recorded(finished, killed_in)


def test_no_label_of_the_target_is_ever_opened(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's folder even holds labels here, broken ones: opening any would fail the run."""
    target = tmp_path / "target"
    shutil.copytree(data / "target", target)
    (target / "labels").mkdir()
    for image in sorted((target / "images").iterdir()):
        (target / "labels" / f"{image.stem}.png").write_bytes(b"broken")
    opened: list[Path] = []
    read = datasets.read_label

    def spy(path: Path, *args: Any) -> np.ndarray:
        opened.append(path)
        return read(path, *args)

    monkeypatch.setattr(datasets, "read_label", spy)
    adapt(tiny(data, data__target__path=target, data__ceiling__path="", distill__rounds=1), tmp_path / "run")
    assert opened and all(target not in path.parents for path in opened)


def test_without_labelled_images_there_are_models_but_no_scores(data: Path, tmp_path: Path) -> None:
    run = adapt(tiny(data, data__val__path="", data__ceiling__path="", distill__rounds=0), tmp_path / "run")
    assert run.best.exists() and (run.folder / "comparison.png").exists()
    assert all("mean_iou" not in row for row in run.results)


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (
            {"warmup__iterations": 0},
            ["source", "initialise", "selflabel", "distill-1", "distill-2", "average", "ceiling"],
        ),
        ({"selflabel__iterations": 0, "distill__rounds": 1}, ["source", "warmup", "distill-1", "average", "ceiling"]),
        ({"distill__rounds": 0, "data__ceiling__path": ""}, ["source", "warmup", "initialise", "selflabel"]),
    ],
    ids=["no warm-up", "no stage 1", "no distillation"],
)
def test_stages_can_be_left_out(data: Path, tmp_path: Path, change: dict[str, Any], stages: list[str]) -> None:
    run = adapt(tiny(data, **change), tmp_path / "run")
    assert sorted(path.name for path in (run.folder / "stages").iterdir()) == sorted(stages)


def records(run: Run, stage: str) -> list[str]:
    """What the run's journal has of a stage."""
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["stage"] == stage]


def test_a_folder_of_another_recipe_is_refused_and_reused(finished: Run, data: Path, tmp_path: Path) -> None:
    changed = tiny(data, selflabel__temperature=0.2)
    with pytest.raises(UserError, match=r"another recipe[\s\S]*selflabel.temperature: 0.08 there, 0.2 now"):
        adapt(changed, finished.folder)
    run = adapt(changed, tmp_path / "run", reuse=finished.folder)
    for stage in ("source", "warmup", "ceiling"):
        assert weights(run, stage) == weights(finished, stage)
        assert records(run, stage) == records(finished, stage) != []
    assert weights(run, "selflabel") != weights(finished, "selflabel")


def test_a_folder_in_which_nothing_was_begun_takes_another_recipe(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        adapt(tiny(data, network__weights="nowhere.pth"), tmp_path / "run")
    assert adapt(tiny(data, distill__rounds=0, data__ceiling__path=""), tmp_path / "run").best.exists()


def test_reuse_wants_a_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        adapt(tiny(data), tmp_path / "run", reuse=tmp_path)


def test_a_student_starts_where_the_recipe_says(
    finished: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: list[int] = []
    build = pipeline.build
    monkeypatch.setattr(pipeline, "build", lambda *args: fresh.append(1) or build(*args))
    monkeypatch.setattr(pipeline.Work, "rehearse", lambda *_: None)
    for student, expected in (("fresh", 2), ("chained", 1), ("previous", 0)):
        fresh.clear()
        adapt(tiny(data, distill__student=student, distill__temperature=2), tmp_path / student, reuse=finished.folder)
        assert len(fresh) == expected, student


@pytest.mark.parametrize(
    ("student", "averaged"),
    [("previous", ["selflabel", "distill-1", "distill-2"]), ("chained", ["distill-1", "distill-2"]), ("fresh", [])],
)
def test_the_average_is_of_networks_that_training_alone_tells_apart(
    data: Path, student: str, averaged: list[str]
) -> None:
    wanted = tiny(data, distill__student=student)
    stages = stages_of(wanted)
    assert ("average" in [stage.name for stage in stages]) == bool(averaged)
    assert line_of(stages, wanted) == (averaged or ["distill-2"])
    assert "average" not in [stage.name for stage in stages_of(tiny(data, selection__average=False))]


def test_the_average_has_the_mean_of_the_stages_weights(finished: Run) -> None:
    line = [load_file(finished.model(name)) for name in ("selflabel", "distill-1", "distill-2")]
    for key, value in load_file(finished.model("average")).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(state[key] for state in line) / 3)
            assert not torch.equal(line[0][key], line[1][key]) or "running_" in key


def test_students_that_go_on_keep_the_targets_statistics(finished: Run) -> None:
    first, *rest = (load_file(finished.model(name)) for name in ("warmup", "selflabel", "distill-1", "distill-2"))
    kept = [key for key in first if "running_" in key]
    assert kept and all(torch.equal(first[key], state[key]) for state in rest for key in kept)


def test_scores_come_when_labelled_images_do(finished: Run, data: Path, tmp_path: Path) -> None:
    """Measuring changes nothing that was learned, so it may be asked for later, and never goes stale."""
    run = adapt(tiny(data, data__val__path="", data__ceiling__path="", distill__rounds=0), tmp_path / "run")
    trained = weights(run, "selflabel")
    run = adapt(tiny(data, data__ceiling__path="", distill__rounds=0), run.folder)
    assert weights(run, "selflabel") == trained
    other = adapt(tiny(data, data__val__limit=1, distill__rounds=0), tmp_path / "other", reuse=finished.folder)
    assert [row["images"] for row in run.results] == [2, 2, 2]
    assert [row["images"] for row in other.results] == [1, 1, 1, 1]
    assert [row["mean_iou"] for row in finished.results[:3]] == [row["mean_iou"] for row in run.results]


def test_a_folder_with_other_things_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(UserError, match="not a run folder"):
        adapt(tiny(data), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_diverging_run_stops_with_a_message_and_keeps_what_is_finished(data: Path, tmp_path: Path) -> None:
    wild = tiny(data, selflabel__lr=1e18, source__iterations=2)
    with pytest.raises(UserError, match=r"stage selflabel: .* became non-finite"):
        adapt(dataclasses.replace(wild, selflabel=dataclasses.replace(wild.selflabel, iterations=30)), tmp_path / "run")
    assert (tmp_path / "run" / "stages" / "warmup" / "done.json").exists()


def test_bfloat16_trains(data: Path, tmp_path: Path) -> None:
    run = adapt(tiny(data, precision="bfloat16", data__ceiling__path="", distill__rounds=1), tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in load_model(run.best)[0].parameters())


@pytest.mark.cuda
def test_a_gpu_runs_every_stage(data: Path, tmp_path: Path) -> None:
    assert adapt(tiny(data, device="cuda"), tmp_path / "run").best.exists()


def test_the_papers_network_walks_the_whole_road(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one block per stage of its ResNet instead of 33: the same tensors in kind, quick enough for a test."""
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
    choice = {"network__architecture": "deeplab", "distill__rounds": 1, "data__ceiling__path": ""}
    run = adapt(tiny(data, **choice, optimizer__name="sgd", selflabel__target_view="weak"), tmp_path / "run")
    network, _, _ = load_model(run.best)
    assert (network.stride, network.channels) == (8, 256)
    assert [row["name"] for row in run.results] == ["source", "warmup", "selflabel", "distill-1", "average"]
