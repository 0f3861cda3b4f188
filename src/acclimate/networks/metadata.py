"""What a model file says of itself, beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.labels import LabelSpace

FORMAT, VERSION = "acclimate", "1"


def describe(space: LabelSpace, network: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a model: its K classes, the recipe section ``network`` that builds it, and further entries."""
    return {**extra, "format": FORMAT, "version": VERSION, "space": space.to_dict(), "network": dict(network)}
