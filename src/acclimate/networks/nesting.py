"""Nested containers of tensors and plain values as flat named tensors and JSON, and back without loss."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Place = tuple[Any, ...]
"""The keys and indices that lead to a value."""


def flatten(tree: Any, name: Callable[[Place], str]) -> tuple[dict[str, Tensor], Any]:
    """Tensors by name, and the rest as JSON in which a name stands for each of them.

    Order, kinds of containers, NumPy numbers, ``requires_grad`` and what a state_dict says of its modules'
    versions are kept.

    Args:
        tree: dictionaries, lists and tuples of tensors, numbers, texts, bytes and None.
        name: what a tensor at a place is called; a mark is added where two names are equal.

    Raises:
        ValueError: a value of another type, with its place.
    """
    tensors: dict[str, Tensor] = {}

    def put(value: Tensor, place: Place) -> Any:
        if value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{show(place)} is a sparse or quantized tensor")
        key = name(place)
        while key in tensors:
            key += "_"
        tensors[key] = value.detach().clone(memory_format=torch.contiguous_format)  # none shares memory with another
        return {"tensor": key, "grad": True} if value.requires_grad else {"tensor": key}

    def walk(value: Any, place: Place) -> Any:
        if isinstance(value, Tensor):
            return put(value, place)
        if type(value) in (dict, OrderedDict):
            pairs = [[walk(key, (*place, key)), walk(value[key], (*place, key))] for key in value]
            versions = getattr(value, "_metadata", None)
            kind = "dict" if type(value) is dict else "ordered"
            return {kind: pairs} if versions is None else {kind: pairs, "versions": walk(versions, place)}
        if type(value) in (list, tuple):
            return {type(value).__name__: [walk(item, (*place, i)) for i, item in enumerate(value)]}
        return _plain(value, place)

    return tensors, walk(tree, ())


def restore(kept: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `flatten` took apart; tensors are copies.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: ``kept`` is not of `flatten`, or tensors are missing.
    """
    if not isinstance(kept, Mapping):
        return kept
    kind, content = next(iter(kept.items()))
    if kind == "tensor":
        return tensors[content].detach().clone().requires_grad_(kept.get("grad", False))
    if kind in ("dict", "ordered"):
        pairs = [(restore(key, tensors), restore(value, tensors)) for key, value in content]
        if kind == "dict":
            return dict(pairs)
        tree = OrderedDict(pairs)
        if "versions" in kept:
            tree._metadata = restore(kept["versions"], tensors)  # pyrefly: ignore[missing-attribute]
        return tree
    if kind in ("list", "tuple"):
        items = [restore(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "number":
        return np.frombuffer(bytes.fromhex(kept["bytes"]), np.dtype(content))[0]
    return {"float": float, "bytes": bytes.fromhex}[kind](content)


def show(place: Place) -> str:
    """A place in one word, for names and messages."""
    return ".".join(map(str, place))


def _plain(value: Any, place: Place) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        number = np.asarray(value).astype(value.dtype.newbyteorder("<"))
        return {"number": number.dtype.str, "bytes": number.tobytes().hex()}
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is bytes:
        return {"bytes": value.hex()}
    if value is None or type(value) in (bool, int, str):
        return value
    raise ValueError(f"{show(place)} is of type {type(value).__name__}")
