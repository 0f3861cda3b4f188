"""Golden vectors of the official implementation, where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("ACCLIMATE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """Loads a golden file by name: arrays as tensors, single values as Python numbers."""

    def load(name: str) -> dict[str, Any]:
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no golden vectors in {GOLDEN}; set ACCLIMATE_GOLDEN to the folder that has them")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: _plain(value) for key, value in arrays.items()}

    return load


def _plain(value: np.ndarray) -> Any:
    if value.ndim == 0:
        return value.item()
    return value.tolist() if value.dtype.kind == "U" else torch.from_numpy(value)
