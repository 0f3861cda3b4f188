"""From an official checkpoint to a model file of ours and back, without loss."""

from __future__ import annotations

from pathlib import Path

from acclimate.errors import UserError
from acclimate.networks import nesting, official
from acclimate.networks.deeplab import DeepLab
from acclimate.networks.pickled import is_pickled
from acclimate.networks.weights import Stored, open_model, write

OURS, OFFICIAL = (".safetensors",), (".pkl", ".pth", ".pt", ".tar")


def convert(source: Path, target: Path, overwrite: bool = False) -> str:
    """Write a model in the other format; the suffix of ``target`` says which: .safetensors, or .pkl (.pth .pt .tar).

    Returns:
        What the model is and which of its tensors matched, for people.

    Raises:
        UserError: no usable model, nothing to convert, not the paper's network, or ``target`` exists.
    """
    suffix = target.suffix.lower()
    if suffix not in OURS + OFFICIAL:
        raise UserError(f"{target}: the suffix says what to write: .safetensors, or .pkl for the official layout")
    if (target.exists() or target.is_symlink()) and not overwrite:
        raise UserError(f"{target}: exists; choose another name or allow --overwrite")
    stored = open_model(source)
    if is_pickled(source) == (suffix in OFFICIAL):
        here = "in the official layout" if is_pickled(source) else "a model of Acclimate"
        raise UserError(f"{source}: is {here} already; name the output *{OURS[0] if is_pickled(source) else '.pkl'}")
    if suffix in OURS:
        write(target, stored.tensors, stored.metadata)
    elif isinstance(stored.network, DeepLab):
        order = [key for key in stored.network.state_dict() if key in stored.tensors]
        order += [key for key in stored.tensors if key.startswith(official.EXTRA)]
        official.write(target, {key: stored.tensors[key] for key in order}, stored.metadata)
    else:
        raise UserError(
            f"{source}: the official layout is for the paper's network alone (network.architecture: deeplab), "
            f"and this model is of architecture {stored.metadata['network'].get('architecture', 'light')}"
        )
    return describe(stored)


def describe(stored: Stored) -> str:
    """Classes, architecture, what an official file says of its training, and the report of the tensors."""
    norm = "with" if "bn_pretrain.weight" in stored.tensors else "without"
    lines = [f"{len(stored.space)} classes ({stored.space.name}), {norm} extra normalisation"]
    kept = stored.metadata.get("official")
    tree = nesting.restore(kept, stored.tensors) if kept is not None else {}
    if isinstance(tree, dict):
        lines[0] += "".join(f", {key} {tree[key]}" for key in ("iter", "best_iou") if key in tree)
    return "\n".join([*lines, str(stored.match)])
