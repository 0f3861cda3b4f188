"""A program that runs the command line again and again, each time in a process of its own that can be made to die.

Importing torch takes longer than a tiny run, so it is imported once, and every run is a fork of that. Jobs come as
lines of JSON on standard input (the fields of `Job`); the exit code of each goes to standard output, below zero for
a signal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SIGNALS = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT}


@dataclass(frozen=True)
class Death:
    """When a run dies, and how."""

    how: str
    """half: inside a save, the temporary file half written; synced: the temporary file whole, not renamed yet;
    renamed: renamed, the folder not synced; cut: as renamed, and the file is cut, as by a power failure;
    killed, terminated, interrupted, failed: after a step of training or of a label pass, by SIGKILL; by SIGTERM or
    SIGINT to it and its data workers, as from schedulers and terminals; by an exception;
    record: inside a line of metrics.jsonl."""
    where: str
    """File in the run folder; or what the journal calls the piece of work."""
    when: int = 1
    """The how-many-eth save of the file; or the step."""

    def __str__(self) -> str:
        return f"{self.how} {self.where} {self.when}"


@dataclass(frozen=True)
class Job:
    """One call of the command line."""

    words: list[str]
    run: str
    """The run folder; the final state of each stage is noted beside it."""
    log: str
    death: Death | None = None


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(death: Death, run: Path) -> None:
    """Have this process die when the time comes."""
    if death.how in ("half", "synced", "renamed", "cut"):
        arm_saves(death, run)
    elif death.how == "record":
        arm_records(death)
    else:
        arm_steps(death)


def arm_saves(death: Death, run: Path) -> None:
    replace, seen = os.replace, [0]

    def deadly(source: Any, target: Any) -> None:
        ours = Path(target) == run / death.where
        seen[0] += ours
        now = ours and seen[0] == death.when
        if now and death.how == "half":
            os.truncate(source, os.path.getsize(source) // 2)
        if now and death.how in ("half", "synced"):
            die()
        replace(source, target)
        if now and death.how == "cut":
            os.truncate(target, os.path.getsize(target) // 2)
        if now:
            die()

    os.replace = deadly


def arm_records(death: Death) -> None:
    from acclimate.journal import Journal

    record = Journal.record

    def deadly(self: Journal, stage: str, step: int, **values: Any) -> None:
        record(self, stage, step, **values)
        if (stage, step) == (death.where, death.when):
            os.truncate(self.path, self.path.stat().st_size - 9)
            die()

    Journal.record = deadly


def arm_steps(death: Death) -> None:
    from acclimate.journal import Journal

    advance, opened = Journal.advance, Journal.stage

    def remember(self: Journal, name: str, *args: Any, **more: Any) -> Any:
        self.at = name
        return opened(self, name, *args, **more)

    def deadly(self: Journal, step: int) -> None:
        advance(self, step)
        if (self.at, step) == (death.where, death.when):
            if death.how == "failed":
                raise RuntimeError("on purpose")
            os.killpg(0, _SIGNALS[death.how]) if death.how != "killed" else die()

    Journal.stage, Journal.advance = remember, deadly


def note_states(folder: Path) -> None:
    """Have the state of each task at its end noted: weights, averages, bank, class distribution, optimisers."""
    from acclimate import pipeline

    def fit(task: Any, batches: Callable[[int], Iterator[Any]], plan: Any, *more: Any) -> float:
        seconds = original(task, batches, plan, *more)
        states = [task.state_dict(), *(optimizer.state_dict() for optimizer in task.optimizers)]
        folder.mkdir(exist_ok=True)
        (folder / plan.name).write_text("\n".join(facts(states)))
        return seconds

    original, pipeline.fit = pipeline.fit, fit


def facts(content: Any, name: str = "") -> Iterator[str]:
    """A line for every value in nested lists and dictionaries; of a tensor, its checksum."""
    import torch

    if isinstance(content, torch.Tensor):
        yield f"{name} {tuple(content.shape)} {hashlib.sha256(content.cpu().numpy().tobytes()).hexdigest()}"
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from facts(value, f"{name}.{key}")
    else:
        yield f"{name} {content!r}"


def perform(job: Job) -> int:
    """Run the command line in this process, which may not survive it."""
    from acclimate import cli

    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background have it ignored
    run = Path(job.run)
    note_states(run.with_name(f"{run.name}-states"))
    if job.death:
        arm(job.death, run)
    return cli.main(job.words)


def main() -> None:
    import torch

    import acclimate.demo
    import acclimate.networks.backbones
    import acclimate.pipeline  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        values = json.loads(line)
        death = Death(**values["death"]) if values["death"] else None
        child = os.fork()
        if child == 0:
            sys.exit(perform(Job(values["words"], values["run"], values["log"], death)))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def to_json(job: Job) -> str:
    return json.dumps(dataclasses.asdict(job))


if __name__ == "__main__":
    main()
