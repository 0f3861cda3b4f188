"""Checkpoints of the official CPSL and ProDA code, to and from what a model file of ours holds.

Such a file is a pickle of nested dictionaries, made by ``torch.save``::

    {"ResNet101": {"model_state": {name: tensor, …}, "prototypes_ema": tensor},  # ProDA: "objective_vectors"
     "iter": int, "best_iou": number}                                # of the warm-up: also "FCDiscriminator"

Here it becomes named tensors and metadata. The network's tensors keep their names (without ``module.``), all
others are called ``official.…``. Where each was, in which order and in which kind of container, stands in the
metadata ``official``, together with all that is no tensor: `write` gives the same nesting again, bit by bit.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.labels import label_space
from acclimate.networks import nesting
from acclimate.networks.metadata import describe
from acclimate.networks.nesting import Place
from acclimate.networks.pickled import read_pickled

SPACES = {19: "cityscapes19", 16: "cityscapes16", 13: "cityscapes13"}
"""What the numbers of classes mean: those of GTA5, of SYNTHIA, and SYNTHIA's shorter list, in Cityscapes' order."""
WIDTH = 2048
"""Width in pixels at which the official evaluation looks at images."""
EXTRA = "official."
"""Beginning of the names of tensors that are kept without being the network's."""
OWN = "acclimate"
"""An entry with our metadata, in files written here whose tensors alone would not tell it (own classes or width)."""

_CLASSIFIER, _EXTRA_NORM = "layer5.head.1.weight", "bn_pretrain.weight"
_UNMEASURED = {"iter": 0, "best_iou": -100.0}
"""What the official code has in these entries before it knows better; it never reads them from a file."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Named tensors and metadata of an official checkpoint, as if it were a model file of ours.

    The tensors are not yet compared with the network, beyond what tells its classes and its extra normalisation.

    Raises:
        UserError: missing, damaged or unsafe file, another architecture, or a class count without a known meaning.
    """
    tree = read_pickled(path)
    try:
        place, state = _network(tree, path)
    except RecursionError:
        raise UserError(f"{path}: a dictionary in it contains itself; give a checkpoint of CPSL or ProDA") from None
    own = tree.pop(OWN, None) if isinstance(tree, dict) else None
    prefix = "module." if all(key.startswith("module.") for key in state) else ""

    def name(tensor: Place) -> str:
        return str(tensor[-1]).removeprefix(prefix) if tensor[:-1] == place else EXTRA + nesting.show(tensor)

    try:
        tensors, kept = nesting.flatten(tree, name)
        metadata = json.loads(own) if own is not None else _metadata(tensors, kept)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {error}, which no official checkpoint holds; save it anew without it") from None
    if not isinstance(metadata, dict):
        raise UserError(
            f"{path}: a network of {len(tensors[_CLASSIFIER])} classes, but official checkpoints have "
            f"{', '.join(map(str, SPACES))}, and the file does not name others; give one of those"
        )
    return tensors, metadata


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a model in the official layout: what `read` gave, or tensors of ours in their network's order.

    Raises:
        UserError: the metadata ``official`` is damaged.
    """
    kept = metadata.get("official")
    try:
        tree: Any = {"ResNet101": {"model_state": OrderedDict(tensors)}, **_UNMEASURED}
        if kept is not None:
            tree = nesting.restore(kept, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, StopIteration) as error:
        raise UserError(
            f"{path}: the metadata 'official' of the model is damaged ({error!r}); convert it anew"
        ) from None
    if metadata != _metadata(tensors, kept):
        tree = {**tree, OWN: json.dumps(metadata, ensure_ascii=False)}
    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(tree, file)


def _metadata(tensors: Mapping[str, Tensor], kept: Any) -> dict[str, Any] | None:
    """What the tensors tell; None where the classes are not one of the official lists."""
    space = SPACES.get(len(tensors[_CLASSIFIER]))
    network = {"architecture": "deeplab", "weights": "none", "dropout": 0.1, "extra_norm": _EXTRA_NORM in tensors}
    return describe(label_space(space), network, {"width": WIDTH, "official": kept}) if space else None


def _network(tree: Any, path: Path) -> tuple[Place, Mapping[str, Any]]:
    """The network's state_dict and its place in the file."""
    states = list(_states(tree))
    for place, state in states:
        if _CLASSIFIER in state or f"module.{_CLASSIFIER}" in state:
            return place, state
    raise UserError(
        f"{path}: not the paper's network (DeepLab-v2 on ResNet-101 with the head of ProDA and CPSL), "
        f"but {_what(tree, [state for _, state in states])}"
    )


def _states(tree: Any, place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every dictionary that holds named tensors."""
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) for key in tree) and any(isinstance(value, Tensor) for value in tree.values()):
            yield place, tree
        for key, value in tree.items():
            yield from _states(value, (*place, key))


def _what(tree: Any, states: list[Mapping[str, Any]]) -> str:
    """What a file holds in place of the network, and what to do about it."""
    if not states:
        found = ", ".join(map(str, list(tree)[:5])) if isinstance(tree, Mapping) else type(tree).__name__
        return f"a file without named tensors (found: {found or 'nothing'}); give the file of a model"
    state = {key.removeprefix("module."): value for key, value in max(states, key=len).items()}
    plain = [value for key, value in state.items() if re.fullmatch(r"layer5\.conv2d_list\.\d+\.weight", key)]
    if plain:
        return (
            f"a plain DeepLab-v2 of {len(plain[0])} classes, as in AdaptSegNet: its head gives no features that could "
            "be clustered; as a backbone it will do (network.weights)"
        )
    if {"fc.weight", "net.0.0.weight"} & set(state):
        return "a classification network without segmentation head; give it as a backbone (network.weights)"
    return f"{len(state)} tensors such as {', '.join(list(state)[:3])}; give a checkpoint of CPSL or ProDA"
