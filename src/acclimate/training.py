"""The one training loop: save if due, batch, step, log. It knows nothing of what is learned."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acclimate import distributed
from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.interrupts import Asked, Terminated, deferred
from acclimate.journal import Journal
from acclimate.recipe import Recipe

if TYPE_CHECKING:
    from acclimate.stages.task import Task

CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"
_REQUESTS = (None, KeyboardInterrupt, Terminated)
"""To stop, in the order of urgency."""


@dataclass(frozen=True)
class Plan:
    """How long a task is trained, and where its checkpoint lies meanwhile."""

    name: str
    """Of the stage; also a part of its random numbers' seed."""
    iterations: int
    folder: Path
    after: Callable[[int], None] = lambda step: None
    """Called after each step, with the number of those done."""


@dataclass
class State:
    """What changes during training beside the task and its optimisers."""

    step: int = 0
    seconds: float = 0.0
    """Time spent, over all continuations."""
    unread: list[dict[str, Tensor]] = field(default_factory=list)
    """Loss terms of the steps that are not logged yet."""


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
            found is another task's.
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the step is done and a checkpoint is written. A second one
            does not wait for that.
    """
    state = restore(task, plan, journal)
    restored = state.step
    device = next(task.parameters()).device
    started = time.monotonic() - state.seconds
    task.train()
    with deferred() as asked, journal.stage(plan.name, plan.iterations, state.step):
        for batch in batches(state.step):
            if state.step % recipe.save_every == 0:
                log(task, state, plan, journal)
                if state.step > restored:
                    state.seconds = time.monotonic() - started
                    save(task, state, plan)

            set_rates(task, rate_factor(state.step, plan.iterations, recipe.optimizer.power, recipe.optimizer.ramp))
            seed_step(recipe.seed, plan.name, state.step, device)
            terms = descend(task, to_device(batch, device), recipe.optimizer.accumulate)
            state.step += 1
            plan.after(state.step)

            # Losses stay on the device until they are logged: reading one waits for all work queued before it.
            state.unread.append(terms)
            if state.step % recipe.log_every == 0 or state.step == plan.iterations:
                log(task, state, plan, journal)
            journal.advance(state.step)

            if request := stop_now(asked):
                state.seconds = time.monotonic() - started
                save(task, state, plan)
                journal.say(f"{plan.name}: asked to stop, saved at iteration {state.step}")
                raise request
    return time.monotonic() - started


def descend(task: Task, batch: Any, accumulate: int = 1) -> dict[str, Tensor]:
    """One step; returns the loss terms of this process's part of the batch, which is done in so many equal parts."""
    for optimizer in task.optimizers:
        optimizer.zero_grad(set_to_none=True)  # first of all: the passes need the room
    said = [_descend_part(task, part, accumulate) for part in in_parts(batch, accumulate)]
    distributed.average_gradients(task.parameters())
    for optimizer in task.optimizers:
        optimizer.step()
    task.after_step()
    return {name: torch.stack([terms[name] for terms in said]).mean(0) for name in said[0]}


def _descend_part(task: Task, part: Any, accumulate: int) -> dict[str, Tensor]:
    """Add a part's share to the gradients; returns its loss terms. What it kept for that is free afterwards."""
    terms = task.step(part)
    (terms["loss"] / accumulate).backward()
    return {name: term.detach() for name, term in terms.items()}


def require_parts(stage: str, batch: int, accumulate: int) -> None:
    """See that a batch can be divided among the processes, and each one's part into as many as ``accumulate``.

    Raises:
        UserError: it cannot.
    """
    own = distributed.part(batch)
    if own % accumulate:
        raise UserError(
            f"optimizer.accumulate: a process has {own} of the {batch} images of {stage}.batch, which cannot be done "
            f"in {accumulate} equal parts; choose a divisor of {own}"
        )


def in_parts(batch: Any, count: int) -> list[Any]:
    """The batch (or tuple of batches) in equal parts."""
    if count == 1:
        return [batch]
    if isinstance(batch, tuple):
        return list(zip(*(in_parts(of_domain, count) for of_domain in batch), strict=True))
    return batch.parts(count)


def stop_now(asked: Asked) -> type[KeyboardInterrupt] | None:
    """What to raise if any process was asked to stop: all stop after the same step, and torchrun waits but 30 s."""
    return _REQUESTS[distributed.largest(_REQUESTS.index(asked.how))]


def rate_factor(step: int, iterations: int, power: float, ramp: int) -> float:
    """Learning rate relative to its full value: a linear rise, times the poly decay (1 - t/T)^power."""
    return min(1.0, (step + 1) / max(ramp, 1)) * (1 - step / iterations) ** power


def set_rates(task: Task, factor: float) -> None:
    """Give every parameter group its full rate times the factor."""
    for optimizer in task.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("full_lr", group["lr"]) * factor


def seed_step(seed: int, stage: str, step: int, device: torch.device) -> None:
    """Seed all generators; on GPUs each of many processes draws dropout of its own, on the CPU all draw the same."""
    torch.manual_seed(step_seed(seed, stage, step))
    if device.type == "cuda" and distributed.rank():
        torch.cuda.manual_seed(step_seed(seed, f"{stage}/{distributed.rank()}", step))


def step_seed(seed: int, stage: str, step: int) -> int:
    """Seed of all randomness within one step (dropout, sampling, CutMix): nothing to save, nothing to restore."""
    return zlib.crc32(f"{seed}/{stage}/{step}".encode())


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch (or tuple of batches) on the device."""
    if isinstance(batch, tuple):
        return tuple(to_device(part, device) for part in batch)
    return batch.to(device)


def log(task: Task, state: State, plan: Plan, journal: Journal) -> None:
    """Record the losses since the last time, if there are any; they and the weights must be finite."""
    if state.unread:
        terms = read_terms(state, plan)
        require_finite(task, plan, state.step)
        journal.losses(plan.name, state.step, terms)


def read_terms(state: State, plan: Plan) -> dict[str, float | list[float]]:
    """Mean of each loss term over the steps not read yet, which are cleared; all must be finite."""
    unread, step = state.unread, state.step
    sums = {name: torch.stack([terms[name] for terms in unread]).mean(0) for name in unread[0]}
    values = iter(distributed.mean(torch.cat([term.reshape(-1) for term in sums.values()])).tolist())
    means: dict[str, float | list[float]] = {
        name: [next(values) for _ in term] if term.ndim else next(values) for name, term in sums.items()
    }
    bad = [name for name, value in means.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        named = [name for name in bad if name != "loss"] or bad
        raise UserError(
            f"stage {plan.name}: loss {' and '.join(named)} became non-finite between iterations "
            f"{step - len(unread)} and {step}. {_kept(plan)} Lower the learning rate (optimizer.lr) or the weight "
            "of that loss, and start a new run folder (--reuse takes over the finished stages)."
        )
    unread.clear()
    return means


def require_finite(task: Task, plan: Plan, step: int) -> None:
    """See that all that learns or follows is finite: weights, averages, prototypes, bank. Waits once for the device."""
    every = [*task.named_parameters(), *task.named_buffers()]
    values = {name: value for name, value in every if value.is_floating_point()}
    fine = torch.stack([value.isfinite().all() for value in values.values()]).tolist()
    bad = [name for name, good in zip(values, fine, strict=True) if not good]
    if bad:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise UserError(
            f"stage {plan.name}: weights became non-finite before iteration {step} ({bad[0]}{more}). {_kept(plan)} "
            "Lower the learning rate (optimizer.lr), and start a new run folder (--reuse takes over the finished "
            "stages)."
        )


def save(task: Task, state: State, plan: Plan) -> None:
    """Write the checkpoint: task, optimisers and state. The one before is kept, what was before that is not."""
    require_finite(task, plan, state.step)
    content = {
        "task": task.state_dict(),  # of all processes: the bank is gathered
        "optimizers": [optimizer.state_dict() for optimizer in task.optimizers],
        "state": dataclasses.asdict(state),
    }
    if distributed.is_main():
        with atomic(plan.folder / CHECKPOINT, keep=plan.folder / PREVIOUS) as temporary, temporary.open("wb") as file:
            torch.save(content, file)


def restore(task: Task, plan: Plan, journal: Journal) -> State:
    """Load the newest checkpoint that is whole into the task, if there is one; returns where training stands."""
    path = distributed.on_main(lambda: find_whole(plan, journal))
    return load(task, path, plan) if path else State()


def find_whole(plan: Plan, journal: Journal) -> Path | None:
    """The newest checkpoint that is whole; damaged ones make way for it."""
    newest, before = plan.folder / CHECKPOINT, plan.folder / PREVIOUS
    if newest.exists() and not is_whole(newest):
        instead = "the one before is used" if before.exists() else f"stage {plan.name} starts anew"
        journal.warn(f"{newest}: damaged, its checksum is wrong; {instead}")
        newest.unlink()
    if not newest.exists() and before.exists():
        if is_whole(before):
            os.replace(before, newest)
        else:
            journal.warn(f"{before}: damaged, its checksum is wrong; stage {plan.name} starts anew")
    return newest if newest.exists() else None


def is_whole(path: Path) -> bool:
    """Whether all parts of a file have the checksums (CRC-32) that ``torch.save`` wrote; ``torch.load`` never looks."""
    with path.open("rb") as file:  # so that a file that may not be read is not taken for damaged
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.testzip() is None
        except Exception:  # a damaged archive can fail in many ways
            return False


def load(task: Task, path: Path, plan: Plan) -> State:
    """Load a checkpoint into the task; returns where training stands."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        task.load_state_dict(content["task"])
        for optimizer, state in zip(task.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        state = State(**content["state"])
    except Exception as error:  # whatever is wrong with the file, its owner needs to know which one
        raise UserError(
            f"{path}: whole, but not a checkpoint of this stage ({type(error).__name__}): of another version? "
            f"Delete it to train stage {plan.name} from its start; finished stages are kept."
        ) from error
    device = next(task.parameters()).device
    state.unread = [{name: term.to(device) for name, term in terms.items()} for terms in state.unread]
    return state


def discard(folder: Path) -> None:
    """Delete a stage's checkpoints, which a finished one needs no more."""
    if distributed.is_main():
        for name in (CHECKPOINT, PREVIOUS):
            (folder / name).unlink(missing_ok=True)


def _kept(plan: Plan) -> str:
    path = plan.folder / CHECKPOINT
    return f"The last good checkpoint is kept: {path}." if path.exists() else "No checkpoint had been written yet."
