"""Target images that cannot be read are left out at the start, and stood in for later, alike for every reader."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_inputs import label, picture

from acclimate import recipe
from acclimate.check import check
from acclimate.data.colour import collect
from acclimate.data.forgiving import REPLACED, ForgivingSet, allowed, leave_out, open_target
from acclimate.data.seeding import Schedule
from acclimate.data.views import TargetViews
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.pipeline import adapt

COUNT = 40


@pytest.fixture
def town(tmp_path: Path) -> recipe.Recipe:
    for number in range(COUNT):
        picture(tmp_path / f"target/{number}.png", number)
    for number in range(8):
        picture(tmp_path / f"source/images/{number}.png", number)
        label(tmp_path / f"source/labels/{number}.png")
    folders = {role: {"path": str(tmp_path / role)} for role in ("source", "target")}
    data = {"classes": "camvid11", "width": 64, "crop": [48, 64], "on_bad_image": "skip", **folders}
    return recipe.parse({"data": data})


def spoil(town: recipe.Recipe, *numbers: int) -> None:
    for number in numbers:
        path = Path(town.data.target.path) / f"{number}.png"
        path.write_bytes(path.read_bytes()[:-300])


def opened(town: recipe.Recipe, run: Path, left_out: tuple[str, ...] = ()) -> ForgivingSet:
    run.mkdir(exist_ok=True)
    leave_out(left_out, run)
    images = open_target(town.data, run)
    assert isinstance(images, ForgivingSet)
    return images


def views(town: recipe.Recipe, images: ForgivingSet) -> TargetViews:
    return TargetViews(images, town.data, town.augment, seed=0, stream="x")


def test_few_broken_images_are_a_warning_that_names_them(town: recipe.Recipe) -> None:
    spoil(town, 3, 30)
    found = check(town)
    assert found.unreadable == ("3", "30")
    (warning,) = [text for text in found.warnings if "skipped" in text]
    assert "2 of 40 images" in warning and "3.png: cannot be decoded" in warning and "30.png" in warning


def test_many_are_a_problem_and_so_are_few_by_default(town: recipe.Recipe) -> None:
    spoil(town, 3, 4, 5)
    with pytest.raises(
        UserError, match=r"3 of 40 images cannot be used; data\.on_bad_image: skip bears with 2 at most"
    ):
        check(town)
    stopping = dataclasses.replace(town, data=dataclasses.replace(town.data, on_bad_image="stop"))
    with pytest.raises(UserError, match="3 problems in the data"):
        check(stopping)


def test_what_is_left_out_is_settled_when_the_run_starts(town: recipe.Recipe, tmp_path: Path) -> None:
    assert len(opened(town, tmp_path / "run", ("3", "30"))) == COUNT - 2
    images = opened(town, tmp_path / "run", ("7",))
    assert [s.name for s in images.samples] == [str(i) for i in range(COUNT) if i not in (3, 30)]


def test_the_next_readable_image_stands_in_with_its_own_item(
    town: recipe.Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = opened(town, tmp_path / "run")
    before = [views(town, images)[(2, index)] for index in range(6)]
    spoil(town, 3, 4)
    for _ in range(2):
        after = [views(town, images)[(2, index)] for index in range(6)]
    for index, like in enumerate((0, 1, 2, 5, 5, 5)):
        torch.testing.assert_close(after[index], before[like], rtol=0, atol=0, equal_nan=True)
    assert len(caplog.records) == 2, "each is told once"
    listed = (tmp_path / "run" / REPLACED).read_text().splitlines()
    assert [line.partition("\t")[0] for line in listed] == ["3", "4"]
    assert collect(images, tmp_path / "colours.npz").shape == (COUNT, 2, 3)


def test_the_last_is_followed_by_the_first(town: recipe.Recipe, tmp_path: Path) -> None:
    images = opened(town, tmp_path / "run")
    spoil(town, COUNT - 1)
    assert views(town, images)[0, COUNT - 1][-1] == 0
    assert np.array_equal(images.image(COUNT - 1), images.image(0))


def test_too_many_stop_the_run_also_over_several_processes(town: recipe.Recipe, tmp_path: Path) -> None:
    spoil(town, 0, 10, 20)
    opened(town, tmp_path / "run").image(0)
    opened(town, tmp_path / "run").image(10)  # another process, or the run continued
    with pytest.raises(UserError, match=r"20\.png.*3 of 40 target images that broke .* bears with \(2\).*Restore them"):
        opened(town, tmp_path / "run").image(20)


def test_one_in_twenty_is_allowed_and_one_at_least() -> None:
    assert [allowed(n) for n in (1, 20, 39, 40, 3000)] == [1, 1, 1, 2, 150]


def test_a_run_with_broken_images_comes_to_its_end(town: recipe.Recipe, tmp_path: Path, capsys) -> None:
    """One is broken from the start; another breaks after the initialisation, which has labelled it."""
    spoil(town, 3)
    tree = recipe.to_dict(town)
    tree["network"] |= {"backbone": "test_resnet", "weights": "none", "channels": 8}
    for stage in ("source", "warmup", "selflabel", "distill"):
        tree[stage] |= {"iterations": 2, "batch": 4}
    tree["distill"]["rounds"], tree["data"]["workers"], tree["device"] = 1, 0, "cpu"

    class Mishap(Journal):
        def say(self, text: str) -> None:
            super().say(text)
            if text.startswith("stage 1 …"):
                spoil(town, 7)
                Schedule.__call__ = lambda schedule, position: (0, position % 8)  # type: ignore[method-assign]

    original = Schedule.__call__
    try:
        run = adapt(recipe.parse(tree), tmp_path / "run", journal=Mishap(tmp_path / "run" / "metrics.jsonl"))
    finally:
        Schedule.__call__ = original  # type: ignore[method-assign]
    assert run.best.exists()
    assert "3.png: cannot be decoded" in capsys.readouterr().err
    assert (run.folder / REPLACED).read_text().startswith("7\t")
    assert len(list((run.path("initialise") / "soft").glob("*.npz"))) == COUNT - 1
