"""Getting values to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(value: Tensor, device: torch.device | str) -> Tensor:
    """The values on the device; a GPU gets them when it comes to it, while Python goes on.

    A plain ``.to(device)`` waits for all work queued before. Not so on Apple's, which reads the memory late, when
    it may be another tensor's already.
    """
    return value.to(device, non_blocking=torch.device(device).type != "mps")
