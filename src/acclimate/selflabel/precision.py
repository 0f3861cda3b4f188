"""The arithmetic's type: at least float32, whatever the network's is."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """The tensor in float32; one of float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()
