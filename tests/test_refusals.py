"""Wrong input, as a user would give it: one message with file and remedy, exit code 2, nothing trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate import cli, pipeline


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(path)


def label(path: Path, value: int = 0, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        picture(tmp_path / "source" / "images" / f"{name}.png")
        label(tmp_path / "source" / "labels" / f"{name}.png")
        picture(tmp_path / "target" / f"{name}.png")
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


Spoil = Callable[[Path], object]
DATA: dict[str, tuple[Spoil, list[str]]] = {
    "missing folder": (lambda d: (d / "target").rename(d / "elsewhere"), ["target", "no such folder"]),
    "no images": (lambda d: remove(d / "target"), ["target", "no images"]),
    "no label": (lambda d: (d / "source/labels/b.png").unlink(), ["images/b.png"]),
    "size mismatch": (lambda d: label(d / "source/labels/b.png", size=(32, 24)), ["labels/b.png", "32x24", "64x48"]),
    "unknown label id": (lambda d: label(d / "source/labels/b.png", 77), ["labels/b.png", "77"]),
    "truncated target image": (lambda d: truncate(d / "target/b.png"), ["target/b.png"]),
    "truncated label": (lambda d: truncate(d / "source/labels/b.png"), ["labels/b.png"]),
    "an image that is text": (lambda d: (d / "target/b.png").write_text("hello"), ["target/b.png"]),
    "empty file": (lambda d: (d / "source/images/b.png").write_bytes(b""), ["images/b.png"]),
    "colour labels": (lambda d: picture(d / "source/labels/b.png"), ["labels/b.png"]),
}
RECIPE: dict[str, tuple[list[str], list[str]]] = {
    "fewer images than the batch": (["selflabel.batch=3"], ["selflabel.batch", "2 images"]),
    "unknown key": (["selflabel.temprature=0.1"], ["selflabel.temprature", "temperature"]),
    "unknown section": (["selflable.temperature=0.1"], ["selflable", "selflabel"]),
    "wrong type": (["source.iterations=many"], ["source.iterations", "many"]),
    "out of range": (["optimizer.ema=1.5"], ["optimizer.ema", "1.5"]),
    "two at once": (["optimizer.ema=1.5", "data.width=-3"], ["2 problems", "optimizer.ema", "data.width"]),
    "contradiction": (["distill.iterations=0"], ["distill.rounds"]),
    "unknown classes": (["data.classes=cityscapes20"], ["cityscapes20", "cityscapes19"]),
    "unknown label scheme": (["data.source.ids=cityscape"], ["cityscape"]),
    "unknown backbone": (["network.backbone=resnet5"], ["resnet5"]),
    "unknown recipe": (["lptop"], ["lptop", "laptop"]),
    "no override": (["selflabel.iterations="], ["selflabel.iterations"]),
}


def adapt(folder: Path, *words: str) -> int:
    small = [f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill")]
    data = ["--source", str(folder / "source"), "--target", str(folder / "target"), "--classes", "streets"]
    return cli.main(["adapt", *small, *words, *data, "--out", str(folder / "run")])


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "fit", lambda *_: pytest.fail("trained on wrong input"))


def assert_refused(folder: Path, code: int, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("acclimate: ") and "Traceback" not in message
    for part in parts:
        assert part in message, message
    assert not (folder / "run" / "stages" / "source" / "model.safetensors").exists()


@pytest.mark.parametrize("spoil", DATA)
def test_wrong_data(good: Path, spoil: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, parts = DATA[spoil]
    change(good)
    assert_refused(good, adapt(good), parts, capsys)
    assert not (good / "run").exists()


@pytest.mark.parametrize("spoil", RECIPE)
def test_wrong_recipe(good: Path, spoil: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, parts = RECIPE[spoil]
    assert_refused(good, adapt(good, *words), parts, capsys)


def test_a_run_folder_of_another_recipe(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good / "run").mkdir()
    (good / "run" / "recipe.yaml").write_text("seed: 5\n", encoding="utf-8")
    assert_refused(good, adapt(good), ["another recipe", "seed: 5 there, 0 now", "--out"], capsys)


def test_a_file_where_the_run_should_go(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good / "run").write_text("mine")
    assert_refused(good, adapt(good), ["run", "--out"], capsys)
    assert (good / "run").read_text() == "mine"
