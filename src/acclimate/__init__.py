"""Unsupervised domain adaptation for semantic segmentation.

    run = acclimate.adapt(source="renders/", target="photos/", labels="map.yaml")
    model = acclimate.load(run.best)
    label_HW = model.predict("street.jpg")

Names are imported when they are first used, so that ``import acclimate`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from acclimate.errors import UserError

if TYPE_CHECKING:
    from acclimate.adaptation import adapt
    from acclimate.exporting import export
    from acclimate.hub import HubModel
    from acclimate.inference import Inference
    from acclimate.prediction import evaluate_on as evaluate
    from acclimate.prediction import load
    from acclimate.prediction import predict_files as predict
    from acclimate.recipe import Recipe

__version__ = "0.1.0"
__all__ = [
    "HubModel",
    "Inference",
    "Recipe",
    "UserError",
    "__version__",
    "adapt",
    "evaluate",
    "export",
    "load",
    "predict",
]

_HOMES = {
    "adapt": ("acclimate.adaptation", "adapt"),
    "evaluate": ("acclimate.prediction", "evaluate_on"),
    "export": ("acclimate.exporting", "export"),
    "HubModel": ("acclimate.hub", "HubModel"),
    "Inference": ("acclimate.inference", "Inference"),
    "load": ("acclimate.prediction", "load"),
    "predict": ("acclimate.prediction", "predict_files"),
    "Recipe": ("acclimate.recipe", "Recipe"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
