"""What a run says of itself."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from acclimate import recipe
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.pipeline import adapt
from acclimate.progress import print_table, tracked


def journal(folder: Path, terminal: bool = False, width: int = 60, **more) -> tuple[Journal, io.StringIO]:
    text = io.StringIO()
    return Journal(folder / "metrics.jsonl", Console(file=text, force_terminal=terminal, width=width), **more), text


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    told, text = journal(tmp_path)
    with told.stage("source", 100):
        told.losses("source", 50, {"loss": 1.25})
    assert "source" in text.getvalue() and "50/100" in text.getvalue()
    assert "it/s" in text.getvalue() and "left" in text.getvalue() and "loss 1.250" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    told, text = journal(tmp_path, terminal=True)
    with told.stage("source", 10):
        told.advance(5)
        told.losses("source", 5, {"loss": 0.5})
    assert "5/10" in text.getvalue()


@pytest.mark.parametrize("width", [24, 40, 72, 200])
def test_the_bar_is_one_line_that_fits_the_terminal(tmp_path: Path, width: int) -> None:
    told, text = journal(tmp_path, terminal=True, width=width)
    with told.stage("distill-2/label", 123456):
        told.advance(98765)
        told.losses("distill-2/label", 98765, {"loss": 0.5, "source": 0.25, "target": 0.125, "consistency": 0.0625})
        told._bar.refresh()
    drawn = text.getvalue()
    frames = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).rstrip() for frame in re.split(r"[\r\n]", drawn)]
    assert max(map(len, frames)) <= width and "\x1b[1A" not in drawn.partition("\x1b[?25h")[0], "no second line"
    assert any("98765" in frame for frame in frames)
    assert any("loss 0.5" in frame for frame in frames) == (width >= 72), "what has no room is cut"


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_table_that_is_too_wide_comes_in_parts(width: int) -> None:
    table = Table(title="IoU, %")
    table.add_column("")
    for stage in range(6):
        table.add_column(f"stage {stage}", justify="right")
    for name in ("vegetation", "mIoU"):
        table.add_row(name, *(f"{stage}{stage}.5 ± 0.6" for stage in range(6)), style="bold")
    text = io.StringIO()
    print_table(Console(file=text, width=width), table)
    said = text.getvalue()
    assert "…" not in said and max(map(len, said.splitlines())) <= width and said.count("IoU, %") == 1
    assert all(said.count(f"{stage}{stage}.5 ± 0.6") == 2 for stage in range(6))
    assert said.count("vegetation") == (1 if width == 100 else 2 if width == 60 else 3)


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"COLUMNS": "40"}, {"TERM": "dumb"}])
def test_a_pipe_gets_plain_lines_whatever_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = Journal(tmp_path / "metrics.jsonl")
    with told.stage("source", 10):
        told.losses("source", 5, {"loss": 0.5, "source": 0.25, "target": 0.125, "consistency": 0.0625})
    assert list(tracked([1, 2, 3], "predicting")) == [1, 2, 3]
    told.warn("the crop is large; make it smaller")
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and not re.search(r"\r|\x1b\[[0-9;?]*[A-HJKhl]", out), "no cursor moves"
    assert "warning: the crop is large" in err


def test_long_silence_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 1000, 9))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    told, text = journal(tmp_path)
    with told.stage("initialise/label", 40):
        for done in range(1, 8):
            told.advance(done)
    assert 2 <= text.getvalue().count("left") < 7 and "/40" in text.getvalue()
    assert list(tracked(range(9), "predicting")) == list(range(9))
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) < 9 and lines[0].startswith("predicting ") and lines[0].endswith(" left")


def test_records_are_json_lines(tmp_path: Path) -> None:
    told, _ = journal(tmp_path)
    told.record("source", 3, loss=0.5)
    told.record("warmup", 3, loss=0.25)
    lines = [json.loads(line) for line in told.path.read_text().splitlines()]
    assert lines == [{"stage": "source", "step": 3, "loss": 0.5}, {"stage": "warmup", "step": 3, "loss": 0.25}]


def test_rewinding_drops_what_will_be_written_again_and_half_lines(tmp_path: Path) -> None:
    told, _ = journal(tmp_path)
    for step in (2, 4, 6):
        told.record("source", step, loss=1.0)
        told.record("warmup", step, loss=1.0)
    with told.path.open("a") as file:
        file.write('{"stage": "wa')
    told.rewind("warmup", 2)
    kept = [json.loads(line) for line in told.path.read_text().splitlines()]
    assert [r["step"] for r in kept if r["stage"] == "source"] == [2, 4, 6]
    assert [r["step"] for r in kept if r["stage"] == "warmup"] == [2]


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'acclimate\[tensorboard\]'"):
        journal(tmp_path, tensorboard=tmp_path / "events")


def test_tensorboard_gets_losses_scores_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="extra `tensorboard`")
    told, _ = journal(tmp_path, tensorboard=tmp_path / "events")
    with told.stage("source", 2):
        told.losses("source", 1, {"loss": 0.5, "shares": [0.25, 0.75]})
        told.losses("source", 2, {"loss": 0.25, "shares": [0.25, 0.75]})
    told.curves("source", 2, {"iou/road": 0.75})
    picture_HWC = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    told.picture("source", 2, "target a", picture_HWC)
    scalars, images = events(tmp_path / "events")
    assert scalars == {"source/loss": [(1, 0.5), (2, 0.25)], "source/iou/road": [(2, 0.75)]}
    (step, drawn_HWC) = images["source/target a"]
    assert step == 2 and np.array_equal(drawn_HWC, picture_HWC)


def test_a_run_fills_tensorboard_and_warns(
    tiny_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run whose first stages are taken over: what the others add."""
    pytest.importorskip("tensorboard", reason="extra `tensorboard`")
    measured = tiny_runs[0]
    chosen = recipe.load(measured / "recipe.yaml", ["tensorboard=true", "distill.lr=0.002"])
    adapt(chosen, tmp_path / "run", measured)
    out, err = capsys.readouterr()
    assert "stage 1: taken over" in out and "warning" not in out
    assert "warning: stage 2: no pseudo label is " in err and "raise selflabel.iterations" in err
    scalars, images = events(tmp_path / "run" / "tensorboard")
    for stage in ("distill-1", "distill-2"):
        assert [step for step, _ in scalars[f"{stage}/loss"]] == [1, 2, 3]
        assert scalars[f"{stage}/mean_iou"][0][0] == 3 and f"{stage}/iou/road" in scalars
        pictured = {tag: picture for tag, picture in images.items() if tag.startswith(f"{stage}/target ")}
        assert len(pictured) == 4
        for step, picture_HWC in pictured.values():
            photo_HWC, seen_HWC = np.split(picture_HWC, 2, axis=1)
            assert step == 3 and picture_HWC.shape == (48, 160, 3) and (photo_HWC != seen_HWC).any()


def test_nothing_is_pictured_unasked(tmp_path: Path) -> None:
    told, _ = journal(tmp_path)
    told.picture("source", 1, "target a", np.zeros((2, 2, 3), np.uint8))
    assert not told.pictured and list(tmp_path.iterdir()) == []


def events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, tuple[int, np.ndarray]]]:
    """What TensorBoard itself reads: scalars with their steps, and pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    tags = found.Tags()
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags["scalars"]}
    images = {tag: found.Images(tag)[-1] for tag in tags["images"]}
    decoded = {
        tag: (one.step, np.array(Image.open(io.BytesIO(one.encoded_image_string)))) for tag, one in images.items()
    }
    return scalars, decoded
