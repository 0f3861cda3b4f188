"""Shell completion: scripts that know all words beforehand, so that no key press waits for Python."""

from __future__ import annotations

import dataclasses
import typing
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from acclimate import recipe

if TYPE_CHECKING:
    from acclimate.cli.command import Command

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Words:
    """What may follow a command."""

    options: dict[str, str]
    """What each does."""
    values: dict[str, tuple[str, ...]]
    """Choices after the options that take a value; none: a file, a folder or any text."""
    recipes: bool
    """Whether recipe names may stand there."""
    keys: bool
    """Whether choices over a recipe may."""
    choices: tuple[str, ...] = ()
    """Other words."""


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """The script that teaches a shell to complete ``acclimate``."""
    words = {name: words_of(command.parser()) for name, command in commands.items()}
    summaries = {name: command.summary for name, command in commands.items()}
    if shell == "fish":
        return "\n".join(_fish(words, summaries)) + "\n"
    template = Template(Path(__file__).with_name("completions").joinpath(f"acclimate.{shell}").read_text("utf-8"))
    return template.substitute(
        commands=" ".join(words),
        names=" ".join(recipe.names()),
        keys=" ".join(key_words()),
        meanings="\n".join(_cases({f"{key}=": choices for key, choices in key_values()})),
        options="\n".join(_cases({name: ("--help", *found.options) for name, found in words.items()})),
        values="\n".join(_cases(_per_option(words))),
        recipes="|".join(name for name, found in words.items() if found.recipes),
        overridden="|".join(name for name, found in words.items() if found.keys),
        others="\n".join(_cases({name: found.choices for name, found in words.items() if found.choices})),
    )


def words_of(parser: ArgumentParser) -> Words:
    """What a command's parser takes; metavars say of positional words what they are."""
    given = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    words = [action for action in parser._actions if not action.option_strings]
    kinds = " ".join(str(action.metavar) for action in words)
    return Words(
        {action.option_strings[0]: action.help or "" for action in given},
        {action.option_strings[0]: tuple(action.choices or ()) for action in given if action.nargs != 0},
        "RECIPE" in kinds,
        "key=value" in kinds,
        tuple(str(choice) for action in words for choice in action.choices or ()),
    )


def key_words() -> list[str]:
    """All keys of a recipe, each with its ``=``."""
    return [f"{key}=" for key in recipe.flatten(recipe.to_dict(recipe.Recipe()))]


def key_values(kind: type = recipe.Recipe, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys that know but a few values, with these."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from key_values(typing.cast(type, hint), f"{prefix}{name}.")
        elif hint is bool:
            yield prefix + name, ("true", "false")
        elif typing.get_origin(hint) is Literal:
            yield prefix + name, typing.get_args(hint)


def _per_option(words: Mapping[str, Words]) -> dict[str, tuple[str, ...]]:
    """Values by ``command:option``."""
    return {f"{name}:{option}": given for name, found in words.items() for option, given in found.values.items()}


def _cases(by_pattern: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Lines of a ``case`` of bash and zsh, which set the array ``found``; equal ones together."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for pattern, words in by_pattern.items():
        merged.setdefault(tuple(words), []).append(pattern)
    for words, patterns in merged.items():
        yield f"            {'|'.join(patterns)}) found=({' '.join(words)});;"


def _fish(words: Mapping[str, Words], summaries: Mapping[str, str]) -> Iterator[str]:
    yield "# acclimate completion for fish: acclimate completion fish | source"
    yield "complete -c acclimate -n __fish_use_subcommand -f"
    for name, found in words.items():
        yield f"complete -c acclimate -n __fish_use_subcommand -a {name} -d {_quoted(summaries[name])}"
        within = f"complete -c acclimate -n '__fish_seen_subcommand_from {name}'"
        for option, meaning in found.options.items():
            takes = ""
            if option in found.values:
                choices = found.values[option]
                takes = f" -x -a {_quoted(' '.join(choices))}" if choices else " -r"
            yield f"{within} -l {option[2:]}{takes} -d {_quoted(meaning)}"
        if found.choices:
            yield f"{within} -f -a {_quoted(' '.join(found.choices))}"
        if found.recipes:
            yield f"{within} -a {_quoted(' '.join(recipe.names()))} -d recipe"
    overridden = " ".join(name for name, found in words.items() if found.keys)
    within = f"complete -c acclimate -n '__fish_seen_subcommand_from {overridden}'"
    valued: dict[str, Any] = dict(key_values())
    for key in key_words():
        values = [key + value for value in valued.get(key[:-1], [""])]
        yield f"{within} -a {_quoted(' '.join(values))}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
