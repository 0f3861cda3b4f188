"""Progress for the person watching: one line that moves on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from acclimate import distributed

T = TypeVar("T")

SILENCE = 20.0
"""Seconds after which a plain line says that work goes on."""
_PLAIN_WIDTH = 160  # of what is no terminal: tables are not squeezed
_ROOM_FOR_BAR = 72


def console() -> Console:
    """Standard output as it is now: names from outside are never read as markup, and the main process alone talks."""
    moves = sys.stdout.isatty()
    return Console(
        file=sys.stdout, highlight=False, markup=False, emoji=False, quiet=not distributed.is_main(),
        # Where FORCE_COLOR makes a log file pass for a terminal, it still cannot move its cursor.
        force_interactive=None if moves else False, width=None if moves else _PLAIN_WIDTH,
    )  # fmt: skip


def bar(on: Console) -> Progress:
    """A line for one task, which has a field ``said``; cut where the terminal ends, never broken."""
    uncut = Column(no_wrap=True)
    columns = [
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        *([BarColumn(24)] if on.width >= _ROOM_FOR_BAR else []),
        MofNCompleteColumn(table_column=uncut),
        TimeRemainingColumn(compact=True, table_column=uncut),
        TextColumn("{task.fields[said]}", markup=False,
                   table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    ]  # fmt: skip
    return Progress(*columns, console=on, transient=True, expand=True)


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, while progress is shown: a line that moves on a terminal, elsewhere one every `SILENCE` seconds."""
    out = console()
    if out.is_interactive and not out.quiet:
        with bar(out) as shown:
            yield from shown.track(items, task_id=shown.add_task(what, total=len(items), said=""))
        return
    began = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last > SILENCE:
            out.print(f"{what} {done}/{len(items)}  {clock((now - began) / done * (len(items) - done))} left")
            last = now
        yield item


def print_table(on: Console, table: Table) -> None:
    """Print a table under its title; one that is too wide in parts, each with the first column and others that fit."""
    if table.title:  # not as the table's own, which would be broken to its width
        on.print(str(table.title), style="italic", soft_wrap=True, markup=False, emoji=False)
    first, *rest = table.columns
    while rest:
        parts = [_part(table, [first, *rest[: count + 1]]) for count in range(len(rest))]
        count = max(1, sum(_width(on, part) <= on.width for part in parts))
        on.print(parts[count - 1])
        rest = rest[count:]


def _part(table: Table, columns: Sequence[Column]) -> Table:
    part = copy(table)
    part.columns = [replace(column, _index=index) for index, column in enumerate(columns)]
    part.title = None
    return part


def _width(on: Console, table: Table) -> int:
    """What a table takes if nothing is cut or broken."""
    return Measurement.get(on, on.options.update_width(10_000), table).maximum


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
