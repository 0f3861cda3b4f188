"""What a run says of itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from acclimate.errors import UserError
from acclimate.journal import Journal


def journal(folder: Path, terminal: bool = False, **more) -> tuple[Journal, io.StringIO]:
    text = io.StringIO()
    return Journal(folder / "metrics.jsonl", Console(file=text, force_terminal=terminal, width=60), **more), text


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


def test_tensorboard_is_written_where_installed_and_named_where_not(tmp_path: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install"):
            journal(tmp_path, tensorboard=tmp_path / "events")
        return
    told, _ = journal(tmp_path, tensorboard=tmp_path / "events")
    told.record("source", 1, loss=0.5)
    assert list((tmp_path / "events").iterdir())
