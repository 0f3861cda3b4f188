"""Getting values to a device without waiting for it, and memory back from one."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor


def upload(value: Tensor, device: torch.device | str) -> Tensor:
    """The values on the device; a GPU gets them when it comes to it, while Python goes on.

    A plain ``.to(device)`` waits for all work queued before. Not so on Apple's, which reads the memory late, when
    it may be another tensor's already.
    """
    return value.to(device, non_blocking=torch.device(device).type != "mps")


def give_back_memory() -> None:
    """Have what this process frees on the CPU given back at once, where the C library can be told to (glibc).

    Otherwise it keeps blocks below 32 MB for later ones, which seldom fit into the holes: a third of the memory of a
    step of ResNet-101. The price is that new blocks come in pages that the system fills one by one.
    """
    mmap_threshold, size = -3, 65536  # M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_threshold, size)
