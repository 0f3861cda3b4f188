"""What a run says of itself: progress for the person watching, ``metrics.jsonl`` for everyone after."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from acclimate import distributed
from acclimate.errors import UserError
from acclimate.files import atomic, explained, sync
from acclimate.printable import printable


class Journal:
    """Progress on the console (a bar on a terminal, plain lines elsewhere) and records in a file.

    Of many processes the main one alone talks and records.

    Args:
        path: the ``metrics.jsonl`` to append to; one JSON object a line with at least stage and step.
        console: where to show progress; default standard output.
        tensorboard: folder for TensorBoard's events; None for none.

    Raises:
        UserError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, console: Console | None = None, tensorboard: Path | None = None) -> None:
        self.path = path
        self._events = _events(tensorboard) if tensorboard else None
        self.console = console or Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False, quiet=not distributed.is_main()
        )
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._total, self._seen, self._since = 0, 0, 0.0

    def say(self, text: str) -> None:
        """One line for the person watching."""
        self.console.print(printable(text), soft_wrap=True, markup=False, emoji=False)

    def record(self, stage: str, step: int, **values: Any) -> None:
        """One line for the file."""
        if not distributed.is_main():
            return
        with explained(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{stage}/{name}", value, step)
            self._events.flush()

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
            self.say(
                f"warning: {self.path}: line {records.index(None) + 1} was cut and is dropped; lines before it may be "
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
    def stage(self, name: str, total: int, start: int = 0, unit: str = "it") -> Iterator[None]:
        """Show progress of a piece of work with ``total`` units, of which ``start`` are done already."""
        self.rewind(name, start)
        self._total, self._seen, self._since = total, start, time.monotonic()
        if start:
            self.say(f"{name}: going on at {unit} {start} of {total}")
        if not self.console.is_terminal or self.console.quiet:
            yield
            self.sync()
            return
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[losses]}"), console=self.console, transient=True) as bar:
            self._bar, self._bar_task = bar, bar.add_task(name, total=total, completed=start, losses="")
            try:
                yield
            finally:
                self._bar = None
        self.sync()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=step)

    def losses(self, stage: str, step: int, terms: dict[str, float]) -> None:
        """Record loss terms, and show them with the speed since the last time and the remaining time."""
        self.record(stage, step, **{name: round(value, 6) for name, value in terms.items()})
        now = time.monotonic()
        speed = (step - self._seen) / max(now - self._since, 1e-6)
        self._seen, self._since = step, now
        text = "  ".join([f"{speed:.2f} it/s", *(f"{name} {value:.3f}" for name, value in terms.items())])
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, losses=text)
            return
        left = (self._total - step) / speed if speed else 0.0
        self.say(f"{stage:<10} {step:>6}/{self._total}  {_clock(left)} left  {text}")


def _events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tensorboard: not installed; pip install 'acclimate[tensorboard]', or set it to false"
        ) from None
    return SummaryWriter(str(folder))


def _record(line: str) -> dict[str, Any] | None:
    """What a line says, or None if it is not whole."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if line.endswith("\n") and isinstance(record, dict) and {"stage", "step"} <= record.keys() else None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
