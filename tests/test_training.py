"""The loop, with a task so small that its behaviour is plain."""

from __future__ import annotations

import dataclasses
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acclimate import interrupts
from acclimate.errors import UserError
from acclimate.interrupts import terminable
from acclimate.journal import Journal
from acclimate.recipe import Recipe
from acclimate.training import CHECKPOINT, PREVIOUS, Plan, fit, rate_factor, step_seed


class Numbers:
    """A batch of one number."""

    def __init__(self, value: float) -> None:
        self.value = torch.tensor(value)

    def to(self, device: torch.device) -> Numbers:
        return self


class Line(nn.Module):
    """Fits one weight to the batches, with noise from the step's own random numbers."""

    def __init__(self, poison_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.optimizers = [torch.optim.AdamW(self.parameters(), lr=0.1)]
        self.poison_at, self.steps = poison_at, 0

    def step(self, batch: Numbers) -> dict[str, Tensor]:
        self.steps += 1
        fit_term = (self.weight - batch.value).square() * (1 + torch.rand(()))
        if self.steps == self.poison_at:
            fit_term = fit_term * float("nan")
        return {"loss": fit_term + 0.0, "fit": fit_term}

    def after_step(self) -> None:
        pass


RECIPE = dataclasses.replace(Recipe(), log_every=2, save_every=4)


def batches(iterations: int):
    def since(step: int) -> Iterator[Numbers]:
        return (Numbers(float(t % 5)) for t in range(step, iterations))

    return since


def train(folder: Path, task: Line, iterations: int = 10, stop_at: int | None = None) -> float:
    folder.mkdir(exist_ok=True)
    source = batches(iterations)

    def stopping(step: int) -> Iterator[Numbers]:
        for t, batch in enumerate(source(step), start=step):
            if t == stop_at:
                raise KeyboardInterrupt
            yield batch

    journal = Journal(folder / "metrics.jsonl")
    fit(task, stopping, Plan("line", iterations, folder), RECIPE, journal)  # type: ignore[arg-type]
    return float(task.weight.detach())


def test_the_rate_rises_then_falls_to_nearly_nothing() -> None:
    factors = [rate_factor(t, 100, 0.9, 10) for t in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == max(factors[8:11])
    assert 0 < factors[-1] < 0.02


def test_the_poly_rule_without_ramp() -> None:
    assert rate_factor(0, 90000, 0.9, 0) == 1
    assert rate_factor(45000, 90000, 0.9, 0) == pytest.approx(0.5**0.9)


@pytest.mark.parametrize("stop_at", [1, 4, 5, 9])
def test_a_stopped_run_goes_on_as_if_never_stopped(tmp_path: Path, stop_at: int) -> None:
    whole = train(tmp_path / "whole", Line())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", Line(), stop_at=stop_at)
    assert train(tmp_path / "broken", Line()) == whole
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert records[0] == records[1]


def test_a_loss_that_is_not_finite_stops_with_its_name_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stage line: loss fit became non-finite between iterations 6 and 8") as caught:
        train(tmp_path, Line(poison_at=8))
    assert str(tmp_path / CHECKPOINT) in str(caught.value)
    content = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert content["state"]["step"] == 4
    assert bool(torch.isfinite(content["task"]["weight"]))


def damage(path: Path, cut: bool) -> None:
    """Halve a checkpoint, or flip one bit of its first tensor."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        tensor = next(info for info in archive.infolist() if "/data/" in info.filename)
        content[content.index(archive.read(tensor), tensor.header_offset)] ^= 1
    path.write_bytes(content[: len(content) // 2] if cut else content)


@pytest.mark.parametrize("cut", [False, True], ids=["a bit flipped", "cut"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: bool
) -> None:
    whole = train(tmp_path / "whole", Line())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", Line(), stop_at=9)
    newest, before = tmp_path / "broken" / CHECKPOINT, tmp_path / "broken" / PREVIOUS
    steps = [torch.load(path, weights_only=True)["state"]["step"] for path in (before, newest)]
    assert steps == [4, 8]
    damage(newest, cut)
    assert train(tmp_path / "broken", Line()) == whole
    said = "".join(capsys.readouterr())
    assert f"warning: {newest}: damaged" in said and "the one before is used" in said and "going on at it 4" in said
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert records[0] == records[1]


def test_without_a_whole_checkpoint_the_stage_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = train(tmp_path / "whole", Line())
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    assert train(tmp_path, Line()) == whole
    assert "stage line starts anew" in capsys.readouterr().err


def test_a_checkpoint_of_another_task_is_named(tmp_path: Path) -> None:
    torch.save({"task": {}, "optimizers": []}, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match=r"checkpoint\.pt: whole, but not a checkpoint of this stage"):
        train(tmp_path, Line())


@pytest.mark.parametrize("stop_at", [3, 4, 10])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_obeyed_after_the_step_and_costs_nothing(
    tmp_path: Path, stop_at: int, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Asked(Line):
        def after_step(self) -> None:
            if self.steps == stop_at:
                signal.raise_signal(number)

    whole = train(tmp_path / "whole", Line())
    with pytest.raises(KeyboardInterrupt), terminable():
        train(tmp_path / "broken", Asked())
    assert f"saved at iteration {stop_at}" in capsys.readouterr().out
    after = Line()
    assert train(tmp_path / "broken", after) == whole
    assert after.steps == 10 - stop_at
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert records[0] == records[1]


def test_a_second_request_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "HANDED_ON", -1.0)

    class Stubborn(Line):
        def step(self, batch: Numbers) -> dict[str, Tensor]:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            return super().step(batch)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Stubborn())
    assert not (tmp_path / CHECKPOINT).exists()


def test_seeds_differ_by_stage_and_step() -> None:
    seeds = {step_seed(0, stage, step) for stage in ("a", "b") for step in range(50)}
    assert len(seeds) == 100
