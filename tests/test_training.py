"""The loop, with a task so small that its behaviour is plain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.recipe import Recipe
from acclimate.training import CHECKPOINT, Plan, fit, rate_factor, step_seed


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


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="checkpoint cannot be read"):
        train(tmp_path, Line())


def test_seeds_differ_by_stage_and_step() -> None:
    seeds = {step_seed(0, stage, step) for stage in ("a", "b") for step in range(50)}
    assert len(seeds) == 100
