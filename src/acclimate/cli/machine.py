"""``doctor`` and ``completion``: the machine and the shell."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from acclimate.cli.command import Command


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path(), metavar="RUN", help="run folder, to see what its disk has")


def _doctor(args: Namespace) -> dict[str, Any]:
    from acclimate import doctor

    found = doctor.examine(args.out)
    print(doctor.describe(found))
    return found


def _completion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="whose script to print")


def _completion(args: Namespace) -> None:
    from acclimate import cli
    from acclimate.completion import script

    print(script(args.shell, cli.COMMANDS), end="")


COMMANDS = (
    Command(
        "doctor",
        "say what this machine offers and which recipe suits it",
        _doctor_arguments,
        _doctor,
        output=("json",),
    ),
    Command("completion", "print a script that completes words in your shell", _completion_arguments, _completion,
            output=()),
)  # fmt: skip
