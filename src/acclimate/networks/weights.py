"""Trained networks as files: safetensors, with all that is needed to use them in the metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from acclimate import recipe
from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.labels import LabelSpace
from acclimate.networks import build
from acclimate.networks.segmenter import Segmenter

FORMAT, VERSION = "acclimate", "1"


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
    metadata = {
        **extra,
        "format": FORMAT,
        "version": VERSION,
        "space": space.to_dict(),
        "network": recipe.to_dict(network_recipe),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic(path) as temporary:
        # One entry: safetensors writes several in random order, and equal models should be equal files.
        save_file(tensors, temporary, {FORMAT: json.dumps(metadata, ensure_ascii=False)})


def load_model(path: Path) -> tuple[Segmenter, LabelSpace, dict[str, Any]]:
    """Read a network written by `save_model`: in eval mode, on the CPU, with its label space and all metadata.

    Torch's global generator is left as it was.

    Raises:
        UserError: missing, damaged or foreign file, tensors of another network, or values that are not finite.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a model of Acclimate (no such metadata); give a file that a run has saved")
    if metadata.get("version") != VERSION:
        found = metadata.get("version", "none")
        raise UserError(f"{path}: version {found} of the format, this Acclimate reads {VERSION}; update Acclimate")
    space = LabelSpace.from_dict(_entry(metadata, "space", path))
    network = recipe.parse({"network": _entry(metadata, "network", path)}, str(path)).network
    with torch.random.fork_rng(devices=[]):
        segmenter = build(dataclasses.replace(network, weights="none"), len(space))
    _check(tensors, segmenter.state_dict(), path)
    segmenter.load_state_dict(tensors)
    return segmenter.eval(), space, metadata


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {}).get(FORMAT, "{}"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such model; give the path of a .safetensors file that a run has saved") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path}: damaged, or not a safetensors file ({error}); copy or train the model again"
        ) from None


def _entry(metadata: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    if not isinstance(metadata.get(key), dict):
        raise UserError(f"{path}: the metadata {key!r} is missing or damaged; copy or train the model again")
    return metadata[key]


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """All tensors there, none besides, of the right shape, and finite."""
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is unknown" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{path}: the tensors are not those of the network in its metadata: {'; '.join(problems[:3])}{more}; "
            "the file was altered, or the installed timm builds this backbone otherwise"
        )
    broken = [key for key, value in found.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} tensors hold values that are not finite, first {broken[0]}: "
            "the training diverged; train again with a lower learning rate"
        )
