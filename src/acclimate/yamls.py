"""YAML that people hand in: plain values alone, in a file that cannot grow while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes of a file that is read; recipes and label maps have some thousand at most."""


class NotReadable(ValueError):
    """A text that is not YAML, or holds what this program does not take from YAML; the message says which."""


class _Loader(yaml.SafeLoader):
    """Safe, and without aliases: a few lines of them can stand for more than a memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"the alias *{event.anchor} is not taken here, write its value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: there is no such file, or it may not be read.
        NotReadable: it is no file, is too long, or is in another encoding.
    """
    if path.exists() and not path.is_file():
        raise NotReadable("this is no file; give the path of a YAML file")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NotReadable(f"longer than {LARGEST >> 20} MiB, which no such file is; give the path of a YAML file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotReadable(f"byte {error.start} is not UTF-8; save the file in the encoding UTF-8") from None


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """The document's value, and its nodes, which know of doubled keys.

    Raises:
        NotReadable: anything that is wrong with the text.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.YAMLError as error:
        raise NotReadable(str(error).replace('in "<unicode string>", ', "in ")) from None
    except RecursionError:
        raise NotReadable("nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML's makers of numbers and dates stumble over what only looks like one.
        reason = str(error).partition(";")[0]
        raise NotReadable(f"a value cannot be read ({reason}); put it in quotes if it is a text") from None


def doubled(node: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    """Dotted names of keys that stand twice in one mapping: the later would silently win."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{prefix}{key.value if isinstance(key, yaml.ScalarNode) else '…'}"
        if name in seen:
            yield f"{name} (again in line {key.start_mark.line + 1})"
        seen.add(name)
        yield from doubled(value, f"{name}.")
