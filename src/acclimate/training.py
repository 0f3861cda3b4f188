"""The one training loop: save if due, batch, step, log. It knows nothing of what is learned."""

from __future__ import annotations

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.journal import Journal
from acclimate.recipe import Recipe

if TYPE_CHECKING:
    from acclimate.stages.task import Task

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Plan:
    """How long a task is trained, and where its checkpoint lies meanwhile."""

    name: str
    """Of the stage; also a part of its random numbers' seed."""
    iterations: int
    folder: Path


@dataclass
class State:
    """What changes during training beside the task and its optimisers."""

    step: int = 0
    seconds: float = 0.0
    """Time spent, over all continuations."""


def fit(task: Task, batches: Callable[[int], Iterator[Any]], plan: Plan, recipe: Recipe, journal: Journal) -> float:
    """Train a task to the end of its plan, from its last checkpoint if there is one; returns the seconds spent.

    Args:
        task: what to learn, on its device already.
        batches: ``batches(step)`` iterates over the batches from that step to the end; a batch is a
            function of its step alone, so that a continued run sees what an unbroken one would.
        plan: name, length and checkpoint folder.
        recipe: seed, intervals and the schedule of the learning rate.
        journal: where progress is told and recorded.

    Raises:
        UserError: a loss or a weight is not finite (the last good checkpoint is kept), or the checkpoint
            found is damaged.
    """
    state = restore(task, plan)
    restored = state.step
    device = next(task.parameters()).device
    started = time.monotonic() - state.seconds
    unread: list[dict[str, Tensor]] = []
    task.train()
    with journal.stage(plan.name, plan.iterations, state.step):
        for batch in batches(state.step):
            if state.step % recipe.save_every == 0 and state.step > restored:
                if unread:
                    journal.losses(plan.name, state.step, read_terms(unread, plan, state.step))
                state.seconds = time.monotonic() - started
                save(task, state, plan)

            set_rates(task, rate_factor(state.step, plan.iterations, recipe.optimizer.power, recipe.optimizer.ramp))
            torch.manual_seed(step_seed(recipe.seed, plan.name, state.step))
            terms = task.step(to_device(batch, device))
            for optimizer in task.optimizers:
                optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            for optimizer in task.optimizers:
                optimizer.step()
            task.after_step()
            state.step += 1

            # Losses stay on the device until they are logged: reading one waits for all work queued before it.
            unread.append({name: term.detach() for name, term in terms.items()})
            if state.step % recipe.log_every == 0 or state.step == plan.iterations:
                journal.losses(plan.name, state.step, read_terms(unread, plan, state.step))
            journal.advance(state.step)
    return time.monotonic() - started


def rate_factor(step: int, iterations: int, power: float, ramp: int) -> float:
    """Learning rate relative to its full value: a linear rise, times the poly decay (1 - t/T)^power."""
    return min(1.0, (step + 1) / max(ramp, 1)) * (1 - step / iterations) ** power


def set_rates(task: Task, factor: float) -> None:
    """Give every parameter group its full rate times the factor."""
    for optimizer in task.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("full_lr", group["lr"]) * factor


def step_seed(seed: int, stage: str, step: int) -> int:
    """Seed of all randomness within one step (dropout, sampling, CutMix): nothing to save, nothing to restore."""
    return zlib.crc32(f"{seed}/{stage}/{step}".encode())


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch (or tuple of batches) on the device."""
    if isinstance(batch, tuple):
        return tuple(to_device(part, device) for part in batch)
    return batch.to(device)


def read_terms(unread: list[dict[str, Tensor]], plan: Plan, step: int) -> dict[str, float]:
    """Mean of each loss term over the steps not read yet, which are cleared; all must be finite."""
    means = {name: float(torch.stack([terms[name] for terms in unread]).mean()) for name in unread[0]}
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        named = [name for name in bad if name != "loss"] or bad
        raise UserError(
            f"stage {plan.name}: loss {' and '.join(named)} became non-finite between iterations "
            f"{step - len(unread)} and {step}. {_kept(plan)} Lower the learning rate (optimizer.lr) or the weight "
            "of that loss, and start a new run folder (--reuse takes over the finished stages)."
        )
    unread.clear()
    return means


def save(task: Task, state: State, plan: Plan) -> None:
    """Write the checkpoint: task, optimisers and state. Refuses weights that are not finite."""
    if not all(bool(torch.isfinite(p).all()) for p in task.parameters()):
        raise UserError(
            f"stage {plan.name}: weights became non-finite before iteration {state.step}. {_kept(plan)} "
            "Lower the learning rate (optimizer.lr)."
        )
    content = {
        "task": task.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in task.optimizers],
        "state": dataclasses.asdict(state),
    }
    with atomic(plan.folder / CHECKPOINT) as temporary:
        torch.save(content, temporary)


def restore(task: Task, plan: Plan) -> State:
    """Load the checkpoint into the task, if there is one; returns where training stands."""
    path = plan.folder / CHECKPOINT
    if not path.exists():
        return State()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        task.load_state_dict(content["task"])
        for optimizer, state in zip(task.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return State(**content["state"])
    except Exception as error:  # whatever is wrong with the file, its owner needs to know which one
        raise UserError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}). "
            f"Delete it to train stage {plan.name} from its start; finished stages are kept."
        ) from error


def _kept(plan: Plan) -> str:
    path = plan.folder / CHECKPOINT
    return f"The last good checkpoint is kept: {path}." if path.exists() else "No checkpoint had been written yet."
