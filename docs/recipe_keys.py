"""Every key of the recipe with its default, what is allowed and what it does, out of `acclimate.recipe` itself.

The page ``recipe-keys.md`` has a comment where the text of `markdown` goes when the pages are built.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from sphinx.pycode import ModuleAnalyzer

from acclimate import recipe

PLACE = "<!-- every key, filled in from acclimate.recipe -->"


def markdown() -> str:
    """Sections and keys in the order of the recipe."""
    return "\n".join([*_keys(recipe.Recipe, ""), *_sections(recipe.Recipe, "")])


def _sections(kind: type, prefix: str) -> Iterator[str]:
    for field, hint in _fields(kind):
        if not dataclasses.is_dataclass(hint):
            continue
        path = f"{prefix}{field.name}"
        about = _said(kind, field.name) or (hint.__doc__ or "")
        yield f"{'##' if not prefix else '###'} `{path}`\n\n{about}\n"
        if hint is recipe.Folder and field.name != "source":
            yield f"The keys are those of `{prefix}source`.\n"
            continue
        yield from _keys(hint, f"{path}.")
        yield from _sections(hint, f"{path}.")


def _keys(kind: type, prefix: str) -> Iterator[str]:
    default = kind()
    for field, hint in _fields(kind):
        if dataclasses.is_dataclass(hint):
            continue
        path = f"{prefix}{field.name}"
        said = _said(kind, field.name)
        others = _others(path, getattr(default, field.name))
        yield "\n".join([
            f"````{{confval}} {path}",
            f":type: {_allowed(field.name, hint)}",
            f":default: {_shown(getattr(default, field.name))}",
            "",
            said,
            "",
            f"Built-in recipes: {others}." if others else "",
            "````",
            "",
        ])  # fmt: skip


def _fields(kind: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(kind)
    return ((field, hints[field.name]) for field in dataclasses.fields(kind))


def _said(kind: type, key: str) -> str:
    """The docstring below a field."""
    lines = ModuleAnalyzer.for_module("acclimate.recipe").find_attr_docs().get((kind.__name__, key), [])
    return "\n".join(lines).strip()


def _allowed(key: str, hint: Any) -> str:
    """The type in words, with the range that `acclimate.recipe` holds values to."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "list of " + " and ".join(_allowed("", part) for part in typing.get_args(hint))
    words = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}[hint]
    ranges = ((recipe._POSITIVE, "above 0"), (recipe._NOT_NEGATIVE, "0 or more"), (recipe._FRACTION, "0 … 1"))
    limits = [said for names, said in ranges if key in names]
    most = recipe._AT_MOST.get(key)
    return ", ".join([words, *limits, *([f"at most {most:,}"] if most else [])])


def _others(path: str, default: Any) -> str:
    """Where the built-in recipes differ from the default."""
    values: dict[str, list[str]] = {}
    for name, flat in _built_in().items():
        value = flat[path]
        if value != (list(default) if isinstance(default, tuple) else default):
            values.setdefault(_shown(value), []).append(name)
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())


@functools.cache
def _built_in() -> dict[str, dict[str, Any]]:
    """The built-in recipes, values by dotted key."""
    return {name: recipe.flatten(recipe.to_dict(recipe.load(name))) for name in recipe.names()}


def _shown(value: Any) -> str:
    """The value as YAML has it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list)):
        return f"`[{', '.join(map(str, value))}]`"
    return "empty" if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
