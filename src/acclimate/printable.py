"""Text from outside (names of files, classes, keys), made safe to show on a terminal."""

from __future__ import annotations

import re
import reprlib

_CONTROL = "\x00-\x1f\x7f-\x9f\ud800-\udfff"  # the last: bytes of a name that are not UTF-8
_NOT_PLAIN = re.compile(f"[{_CONTROL}]")
# The same, and turns of the writing direction.
_STEERING = re.compile(f"[{_CONTROL}\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxdict = 4
_SHORT.maxlist = 4
_SHORT.maxtuple = 4
_SHORT.maxset = 4
_SHORT.maxstring = 80
_SHORT.maxlong = 40
_SHORT.maxother = 80


def is_plain(text: str) -> bool:
    """Whether a text holds no control characters (line breaks are such), and can be encoded."""
    return not _NOT_PLAIN.search(text)


def printable(text: str) -> str:
    r"""The text with all that would steer a terminal, or cannot be encoded, written out as ``\x1b``.

    Line breaks and tabs stay.
    """
    return _STEERING.sub(lambda m: m[0] if m[0] in "\n\t" else _escape(m[0]), text)


def shown(value: object) -> str:
    """``repr`` of a value from outside, cut where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number of more digits than Python writes out
        return f"a huge {type(value).__name__}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
