"""``recipes``: the built-in recipes."""

from __future__ import annotations

import re
import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from typing import Any

from acclimate.cli.command import Command

_LISTED = {"command": 1, "hardware": 1, "time": 1, "mIoU": 2}
"""Entries of a recipe's header that the list shows, and how many sentences of them."""


def _recipes_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="RECIPE", help="print this recipe (a name, or a file)")


def _recipes(args: Namespace) -> Any:
    from acclimate import recipe

    if args.name:
        text, origin = recipe.read(args.name)
        print(text, end="")
        return {**header(text), "name": origin, "recipe": recipe.to_dict(recipe.load(args.name))}
    headers = {name: header(recipe.read(name)[0]) for name in recipe.names()}
    print("\n\n".join(_entry(name, said) for name, said in headers.items()))
    print("\nacclimate recipes RECIPE prints one, with its command and all that differs from the defaults.")
    return {name: {**said, "name": name} for name, said in headers.items()}


def header(text: str) -> dict[str, str]:
    """What the comment at the top of a recipe says: ``summary``, and the entries written ``#   key: words``."""
    comment = [line[1:] for line in re.match(r"(?:#.*\n)*", text)[0].splitlines()]  # type: ignore[index]
    said, key = {"summary": ""}, "summary"
    for line in comment:
        entry = re.fullmatch(r" {3}(\w[\w ]*): +(.*)", line)
        if entry:
            key, line = entry.groups()
        elif not line.startswith("  ") and key != "summary":
            break  # remarks on the keys below
        words = line.strip().removesuffix(" \\")  # a command goes on in the next line
        said[key] = f"{said.get(key, '')} {words}".strip()
    return said


def _entry(name: str, said: dict[str, str]) -> str:
    """Name, summary and what a recipe takes and gives, as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 120)
    lines = [name, *_wrapped(said["summary"], "  ", width)]
    for key, sentences in _LISTED.items():
        if key in said:
            told = " ".join(re.split(r"(?<=\.) (?=[A-Z])", said[key])[:sentences])
            told = told.partition(" (")[0] if key == "command" else told  # remarks on it
            lines += _wrapped(f"{key + ':':<10}{told}", "    ", width, hang=10)
    return "\n".join(lines)


def _wrapped(text: str, indent: str, width: int, hang: int = 0) -> list[str]:
    hanging = indent + hang * " "
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False)


COMMANDS = (
    Command("recipes", "list the built-in recipes, or print one", _recipes_arguments, _recipes, output=("json",)),
)
