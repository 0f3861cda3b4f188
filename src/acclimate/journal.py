"""What a run says of itself: progress for the person watching, ``metrics.jsonl`` for everyone after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from acclimate import distributed
from acclimate.errors import UserError
from acclimate.files import atomic, explained, sync
from acclimate.printable import printable
from acclimate.progress import SILENCE, bar, clock, console


class Journal:
    """Progress on the console (a bar on a terminal, plain lines elsewhere) and records in a file.

    Progress goes to standard output, warnings to standard error, so that they are seen where progress is not wanted.

    Of many processes the main one alone talks and records.

    Args:
        path: the ``metrics.jsonl`` to append to; one JSON object a line with at least stage and step.
        on: where to show progress and warnings; default standard output and standard error.
        tensorboard: folder for TensorBoard's events; None for none.

    Raises:
        UserError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, on: Console | None = None, tensorboard: Path | None = None) -> None:
        self.path = path
        self._events = _events(tensorboard) if tensorboard and distributed.is_main() else None
        self.console = on or console()
        self._aside = on or Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=self.console.quiet)
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._stage, self._total, self._seen, self._since = "", 0, 0, 0.0

    def say(self, text: str) -> None:
        """One line for the person watching."""
        self.console.print(printable(text), soft_wrap=True, markup=False, emoji=False)

    def warn(self, text: str) -> None:
        """A warning: what is likely a mistake or was damaged, and what to do."""
        told = printable(f"warning: {text}")
        self._aside.print(told, style="yellow", soft_wrap=True, markup=False, emoji=False)

    def record(self, stage: str, step: int, **values: Any) -> None:
        """One line for the file."""
        if not distributed.is_main():
            return
        with explained(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        self.curves(stage, step, _scalars(values))

    def curves(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Points for TensorBoard alone, if it is wanted."""
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{stage}/{name}", value, step)
            self._events.flush()

    @property
    def pictured(self) -> bool:
        """Whether anybody wants pictures."""
        return self._events is not None

    def picture(self, stage: str, step: int, name: str, image_HWC: np.ndarray) -> None:
        """A picture (uint8 RGB) for TensorBoard, if it is wanted."""
        if self._events is not None:
            self._events.add_image(f"{stage}/{name}", image_HWC, step, dataformats="HWC")
            self._events.flush()

    def adopt(self, stage: str, path: Path) -> None:
        """Take over another run's records of a stage; there may be none."""
        if not (distributed.is_main() and path.exists()):
            return
        self.forget(lambda record: record["stage"] == stage)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        with explained(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(line for line in lines if (_record(line) or {}).get("stage") == stage)

    def rewind(self, stage: str, step: int) -> None:
        """Forget records of a stage after a step: a continued run will write them anew."""
        self.forget(lambda record: record["stage"] == stage and record["step"] > step)

    def mend(self) -> None:
        """Drop the line that was cut if the run was killed or the power failed while it was written."""
        self.forget(lambda record: False)

    def forget(self, unwanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop records, and what is no whole record."""
        if not (distributed.is_main() and self.path.exists()):
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        records = [_record(line) for line in lines]
        if None in records:
            self.warn(
                f"{self.path}: line {records.index(None) + 1} was cut and is dropped; lines before it may be "
                "missing, too. What is done again is recorded again, and nothing else depends on this file"
            )
        kept = [line for line, record in zip(lines, records, strict=True) if record and not unwanted(record)]
        if kept != lines:
            with atomic(self.path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def sync(self) -> None:
        """Have the disk hold all records."""
        if distributed.is_main() and self.path.exists():
            with explained(self.path):
                sync(self.path)

    @contextmanager
    def stage(self, name: str, total: int, start: int = 0, unit: str = "it") -> Generator[None]:
        """Show progress of a piece of work with ``total`` units, of which ``start`` are done already."""
        self.rewind(name, start)
        self._stage, self._total, self._seen, self._since = name, total, start, time.monotonic()
        if start:
            self.say(f"{name}: going on at {unit} {start} of {total}")
        if not self.console.is_interactive or self.console.quiet:
            yield
            self.sync()
            return
        with bar(self.console) as self._bar:
            self._bar_task = self._bar.add_task(name, total=total, completed=start, said="")
            try:
                yield
            finally:
                self._bar = None
        self.sync()

    def advance(self, step: int) -> None:
        """Move the bar; without one, say now and then that work goes on."""
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=step)
        elif time.monotonic() - self._since > SILENCE:
            self.say(self._line(step, self._speed(step)))

    def losses(self, stage: str, step: int, terms: Mapping[str, float | list[float]]) -> None:
        """Record loss terms, and show the scalars with the speed since the last time and the remaining time."""
        self.record(stage, step, **{name: _rounded(value) for name, value in terms.items()})
        speed, said = self._speed(step), "  ".join(f"{name} {value:.3f}" for name, value in _scalars(terms).items())
        if self._bar is not None and self._bar_task is not None:
            # The loss first: of a line that is cut the beginning is left.
            self._bar.update(self._bar_task, said=f"{said}  {speed:.2f} it/s")
        else:
            self.say(f"{self._line(step, speed)}  {speed:.2f} it/s  {said}")

    def _speed(self, step: int) -> float:
        """Steps a second since this was asked last."""
        now = time.monotonic()
        speed = (step - self._seen) / max(now - self._since, 1e-6)
        self._seen, self._since = step, now
        return speed

    def _line(self, step: int, speed: float) -> str:
        left = (self._total - step) / speed if speed else 0.0
        return f"{self._stage:<10} {step:>6}/{self._total}  {clock(left)} left"


def _events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tensorboard: not installed; pip install 'acclimate[tensorboard]', or set it to false"
        ) from None
    return SummaryWriter(str(folder))


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not isinstance(value, list)}


def _rounded(value: float | list[float]) -> float | list[float]:
    return [round(one, 6) for one in value] if isinstance(value, list) else round(value, 6)


def _record(line: str) -> dict[str, Any] | None:
    """What a line says, or None if it is not whole."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if line.endswith("\n") and isinstance(record, dict) and {"stage", "step"} <= record.keys() else None
