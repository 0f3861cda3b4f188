"""What a command of the command line is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A verb of the command line: its arguments, and the function that does it."""

    name: str
    summary: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Any]
    """Prints for people; returns what ``--json`` prints for scripts: plain values."""
    after_interrupt: str = "nothing is lost, call it again"
    usage: str = ""
    """One line in place of all flags, where they are many."""
    output: tuple[str, ...] = ("quiet",)
    """Which of ``--quiet`` and ``--json`` it has."""

    def parser(self) -> ArgumentParser:
        """The parser of what follows the verb."""
        summary = f"{self.summary[0].upper()}{self.summary[1:]}."
        usage = f"acclimate {self.name} {self.usage}" if self.usage else None
        parser = ArgumentParser(f"acclimate {self.name}", usage, summary, allow_abbrev=False)
        self.arguments(parser)
        parser.set_defaults(quiet=False, json=False)
        shown = parser.add_argument_group("output") if self.output else parser
        if "quiet" in self.output:
            shown.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
        if "json" in self.output:
            shown.add_argument(
                "--json",
                action="store_true",
                help="print one JSON object on standard output, and all else on standard error",
            )
        return parser
