"""PyTorch's own files, which are pickles, read without running anything that they bring along.

A pickle is a small program: whoever made it chooses which functions run while it is read. Torch's
``weights_only`` reader knows the few that make tensors and containers, and refuses the rest. The official
files also hold one NumPy number; the functions that NumPy would call for it are replaced by those below,
so that nothing is allowed beyond turning a few bytes into a number.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.errors import UserError

_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _Kind:
    """Stands in for ``numpy.dtype`` in a pickle: the type of a number, and no other type."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _CODES:
            raise pickle.UnpicklingError(f"Unsupported kind of number {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]


def _number(kind: _Kind, data: bytes) -> np.generic:
    """Stands in for NumPy's function that makes one number from bytes."""
    (value,) = np.frombuffer(data, np.dtype(kind.order + kind.code))
    return value.astype(kind.code)  # in this machine's byte order


_NUMBERS: list[Any] = [
    (_Kind, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def is_pickled(path: Path) -> bool:
    """Whether a file's content (whatever its suffix) is what ``torch.save`` writes, now or before 2020."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    header_of_safetensors = b"\0\0\0\0{".startswith(start[4:])  # or what a cut left of it
    return start.startswith((b"PK\x03\x04", b"\x80")) and not header_of_safetensors


def read_pickled(path: Path) -> Any:
    """The tensors, on the CPU, and plain values of a file of ``torch.save``, nested as they were.

    Raises:
        UserError: the file is missing or damaged, or could only be read by running code that it brings along.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not is_pickled(path):
        raise UserError(f"{path}: damaged, or neither a file of torch.save nor safetensors; copy or download it again")
    try:
        # An open file, because torch.load takes a path that ends in .safetensors for that format.
        with path.open("rb") as file, torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of a pickle protocol that is not torch's usual one
            return torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes its reader stumble over anything
        wanted = _forbidden(error, path)
        reason = "" if isinstance(error, pickle.UnpicklingError) else re.split(r"\n|\. ", str(error).strip())[0]
    if wanted is None:
        raise UserError(f"{path}: damaged ({reason or 'the pickle breaks off'}); copy or download it again")
    raise UserError(
        f"{path}: refused, because reading it could run code that the file brings along (it asks for {wanted}), and "
        "such code can do whatever you can on this machine. Weights need tensors, numbers, texts, lists and "
        "dictionaries alone: let whoever made the file save it anew from these, for example with "
        "torch.save({'ResNet101': {'model_state': network.state_dict()}}, 'NEW.pkl')"
    )


def _forbidden(error: Exception, path: Path) -> str | None:
    """What a pickle wanted to do beyond making tensors and plain values, if that is why it was not read."""
    text = str(error)
    if "TorchScript" in text:
        return "a TorchScript program"
    wanted = re.search(r"GLOBAL (\S+)|function (<.+?>)|but got (<.+?>)|Unsupported (operand \d+|kind .+)", text)
    if not isinstance(error, pickle.UnpicklingError) or wanted is None:
        return None
    name = next(filter(None, wanted.groups())).replace("operand", "pickle operation")
    last = name.rpartition(".")[2].encode()
    # A file that breaks off within the name of a harmless function is damaged, no more (torch drops one letter).
    return None if last in path.read_bytes()[-len(last) - 1 :] else name
