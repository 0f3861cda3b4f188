"""What a process hands over to the others, counted where it happens."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

_WHAT = {
    "average_gradients": "gradients",
    "_batch_norm": "BatchNorm, forward",
    "backward": "BatchNorm, backward",
    "gather_rows": "labels to draw pixels from",
    "fetch": "features and logits of the drawn pixels",
    "logsumexp": "Sinkhorn",
    "_scaled": "Sinkhorn",
    "masked_mean": "counts of valid pixels",
    "count_labels": "class distribution",
    "label_shares": "class distribution",
    "largest": "whether to stop",
    "read_terms": "losses, when logged",
}
"""By the function that needs it; the innermost one that is named here counts."""


class Traffic:
    """Exchanges and bytes that this process gave, by what they were for."""

    def __init__(self) -> None:
        self.exchanges: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def note(self, tensor: Tensor) -> None:
        """Count one exchange."""
        what = next((_WHAT[frame.function] for frame in inspect.stack(0) if frame.function in _WHAT), "other")
        self.exchanges[what] += 1
        self.bytes[what] += tensor.numel() * tensor.element_size()


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count what this process gives to the others within the block; broadcasts, of which no step has any, are not."""
    traffic = Traffic()
    before = {name: getattr(dist, name) for name in ("all_reduce", "all_gather")}

    def counting(name: str, given: int) -> Callable[..., Any]:
        def exchange(*args: Any, **more: Any) -> Any:
            traffic.note(args[given])
            return before[name](*args, **more)

        return exchange

    dist.all_reduce, dist.all_gather = counting("all_reduce", 0), counting("all_gather", 1)
    try:
        yield traffic
    finally:
        for name, function in before.items():
            setattr(dist, name, function)
