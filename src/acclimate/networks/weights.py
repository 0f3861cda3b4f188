"""Files of trained networks, through one entrance: ours (safetensors), and the official CPSL and ProDA checkpoints."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from acclimate import recipe
from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.labels import LabelSpace
from acclimate.networks import build, official
from acclimate.networks.backbones import Match
from acclimate.networks.metadata import FORMAT, VERSION, describe
from acclimate.networks.pickled import is_pickled
from acclimate.networks.segmenter import Segmenter
from acclimate.printable import shown

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """All that a model file holds, and the network made of it: in eval mode, on the CPU."""

    tensors: dict[str, Tensor]
    """The network's, and further ones of an official checkpoint (``official.…``)."""
    metadata: dict[str, Any]
    network: Segmenter
    space: LabelSpace
    match: Match


def save_model(
    path: Path, network: Segmenter, space: LabelSpace, network_recipe: recipe.Network, extra: Mapping[str, Any]
) -> None:
    """Write a network whole or not at all.

    Args:
        path: the file, ending in .safetensors; its folder is made where it is missing.
        network: what `build` made of ``network_recipe``, on any device.
        space: its K classes.
        network_recipe: for `load_model` to build it anew.
        extra: further metadata, such as the image width that it was trained at.
    """
    write(path, network.state_dict(), describe(space, recipe.to_dict(network_recipe), extra))


def load_model(path: Path) -> tuple[Segmenter, LabelSpace, dict[str, Any]]:
    """A network in eval mode, on the CPU, with its label space and all metadata.

    The file is one that `save_model` wrote or an official checkpoint: its content decides, not its suffix. Torch's
    global generator is left as it was.

    Raises:
        UserError: missing, damaged, unsafe or foreign file, tensors of another network, or values that are not finite.
    """
    stored = open_model(path)
    log.log(logging.INFO if "official" in stored.metadata else logging.DEBUG, "%s: %s", path, stored.match)
    return stored.network, stored.space, stored.metadata


def open_model(path: Path) -> Stored:
    """As `load_model`, with the very tensors of the file and the report of what matched."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path}: is no file; give a .safetensors file that a run has saved, or an official checkpoint")
    tensors, metadata = official.read(path) if is_pickled(path) else _read(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a model of Acclimate (no such metadata); give a file that a run has saved")
    if metadata.get("version") != VERSION:
        found = metadata.get("version", "none")
        raise UserError(f"{path}: version {found} of the format, this Acclimate reads {VERSION}; update Acclimate")
    try:
        space = LabelSpace.from_dict(_entry(metadata, "space", path))
    except UserError as error:
        raise UserError(f"{path}: the metadata 'space' is damaged: {error}; copy or train the model again") from None
    network = recipe.parse({"network": _entry(metadata, "network", path)}, str(path)).network
    with torch.random.fork_rng(devices=[]):
        segmenter = build(dataclasses.replace(network, weights="none"), len(space))
    own = segmenter.state_dict()
    state = {key: value for key, value in tensors.items() if not key.startswith(official.EXTRA)}
    _check(state, own, path)
    width = metadata.get("width")
    if type(width) is not int or not 0 < width <= recipe.WIDEST:
        raise UserError(f"{path}: the metadata 'width' is missing or damaged ({shown(width)}); train the model again")
    # Counters of BatchNorm are missing in files of old versions of PyTorch, and nothing reads them.
    segmenter.load_state_dict(state, strict=False)
    match = Match(
        matched=tuple(key for key in own if key in state),
        missing=tuple(key for key in own if key not in state),
        left_over=tuple(key for key in tensors if key not in own),
    )
    return Stored(tensors, metadata, segmenter.eval(), space, match)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a model file of ours: equal content gives equal bytes."""
    own = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic(path) as temporary:
        # One entry: safetensors writes several in random order, and equal models should be equal files.
        save_file(own, temporary, {FORMAT: json.dumps(metadata, ensure_ascii=False)})


def require_space(found: LabelSpace, wanted: LabelSpace, path: Path) -> None:
    """See that a model has exactly the classes that are asked for.

    Raises:
        UserError: other classes, or in another order.
    """
    if found.classes == wanted.classes:
        return
    differences = [
        f"{text} {', '.join(names)}"
        for text, names in (
            ("it lacks", [name for name in wanted.classes if name not in found.classes]),
            ("it has besides", [name for name in found.classes if name not in wanted.classes]),
        )
        if names
    ]
    raise UserError(
        f"{path}: a model of {len(found)} classes ({found.name}), but {len(wanted)} are asked for ({wanted.name}): "
        f"{'; '.join(differences) or 'the same names in another order'}; set data.classes to {found.name}, "
        f"or give a model of {wanted.name}"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            return tensors, metadata if isinstance(metadata, dict) else {}
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such model; give a .safetensors file that a run has saved, or an official checkpoint"
        ) from None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise UserError(
            f"{path}: damaged, or neither a safetensors file nor an official checkpoint ({_first_line(error)}); "
            "copy, download or train the model again"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _entry(metadata: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    if not isinstance(metadata.get(key), dict):
        raise UserError(f"{path}: the metadata {key!r} is missing or damaged; copy or train the model again")
    return metadata[key]


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """All tensors there (but counters of BatchNorm), none besides, of the right shape, and finite."""
    problems = [f"{key} is missing" for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    problems += [f"{key} is unknown" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    problems += [
        f"{key} holds {_type(found[key])} instead of {_type(value)}"
        for key, value in expected.items()
        if key in found and value.is_floating_point() and not found[key].is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{path}: the tensors are not those of the network that it names: {'; '.join(problems[:3])}{more}; "
            "another architecture, an altered file, or a timm that builds this backbone otherwise"
        )
    broken = [key for key, value in found.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} tensors hold values that are not finite, first {broken[0]}: "
            "the training diverged; train again with a lower learning rate"
        )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
