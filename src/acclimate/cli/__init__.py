"""The command line: one file per group of commands, each with its ``COMMANDS``.

Parsing needs the standard library alone; a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

from acclimate import __version__
from acclimate.cli import adapt, check, machine, models, recipes, report
from acclimate.cli.command import Command
from acclimate.errors import UserError
from acclimate.interrupts import Terminated, terminable
from acclimate.printable import printable

__all__ = ["COMMANDS", "Command", "main"]

_GROUPS = (adapt, check, report, models, recipes, machine)
COMMANDS = {command.name: command for group in _GROUPS for command in group.COMMANDS}
"""By name, in the order in which help lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few letters is no reason to end a run
    words = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS[_top_parser().parse_args(words[:1] or ["--help"]).command]
    args = command.parser().parse_intermixed_args(words[1:])
    try:
        return _run(command, args)
    except BrokenPipeError:  # whoever read along, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: Command, args: Namespace) -> int:
    try:
        with terminable(), _log_on_stderr(args.quiet), _talk(args):
            answer = command.run(args)
    except UserError as error:
        return _refuse(str(error), args, told=error.told)
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that vanished or may not be written, a full disk
        if error.filename is None:
            raise
        return _refuse(_of_system(error), args)
    except KeyboardInterrupt as request:
        ended = isinstance(request, Terminated)
        print(f"\nacclimate: {'terminated' if ended else 'interrupted'}; {command.after_interrupt}", file=sys.stderr)
        return 143 if ended else 130
    if args.json and _is_main():
        print(json.dumps(answer, indent=1))
    return 0


def _refuse(message: str, args: Namespace, told: bool = False) -> int:
    """Say what is wrong with the input; ``told``: another process says so."""
    if not told:
        print(f"acclimate: {printable(message)}", file=sys.stderr)
        if args.json:
            print(json.dumps({"error": message}, indent=1))
    return 2


def _of_system(error: OSError) -> str:
    """The system's refusal as a message; a temporary file goes by the name of the file that it was to become."""
    path = Path(os.fsdecode(error.filename))
    name = re.sub(r"^\.(.+)\.\d+\.tmp$", r"\1", path.name)
    return f"{path.with_name(name) if name else path}: {error.strerror}; see to that, then call the command again"


@contextmanager
def _log_on_stderr(quiet: bool) -> Generator[None]:
    """Show what modules report, such as which tensors of a file of weights matched."""
    log, handler = logging.getLogger("acclimate"), logging.StreamHandler()
    handler.setFormatter(_Plain())
    level = log.level
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _talk(args: Namespace) -> Generator[None]:
    """Where what is meant for people goes: standard output is left to ``--json``, and to one of many processes."""
    with ExitStack() as stack:
        if args.quiet or not _is_main():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        elif args.json:
            stack.enter_context(redirect_stdout(sys.stderr))
        yield


def _is_main() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one; all may report errors."""
    return os.environ.get("RANK", "0") == "0"


class _Plain(logging.Formatter):
    """Names of files and tensors come from outside."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _top_parser() -> ArgumentParser:
    listing = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    parser = ArgumentParser(
        "acclimate",
        usage="acclimate COMMAND ...",
        description="Unsupervised domain adaptation for semantic segmentation.",
        epilog=f"commands:\n{listing}\n\nacclimate COMMAND --help tells more about one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"acclimate {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
