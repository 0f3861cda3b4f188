"""Everything about many processes. With one process each function is what its name says, and costs nothing.

``torchrun`` starts the processes and says by environment variables how many there are; NCCL carries tensors
between GPUs, Gloo all that lies on CPUs, also where there are GPUs. Processes are equals that compute the same run
on different images: every mean, statistic and assignment is that of the whole batch, so that the number of processes
changes the speed alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from acclimate.errors import UserError

T = TypeVar("T")
BUCKET = 32 << 20
"""Bytes of gradients that travel together."""


@contextmanager
def processes(device: str = "auto") -> Generator[None]:
    """Join the other processes for the time of the block, if ``torchrun`` started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # What lies on the CPU (objects, counts, whether to stop) goes by Gloo also beside GPUs: no GPU waits for it.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise UserError(
            "another process of this run has ended, so that this one cannot go on; if it was not killed, it says why "
            f"itself. The same command goes on from what is finished. ({str(error).partition(chr(10))[0]})"
        ) from error
    dist.destroy_process_group()  # not after an error: the others may be waiting, and torchrun ends them


def _is_lost_peer(error: RuntimeError) -> bool:
    """Whether the exchange with another process failed: Gloo has no type of its own for that."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes files and talks."""
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list: every item is in exactly one part."""
    return items[rank() :: count()]


def part(batch: int) -> int:
    """This process's part of a batch.

    Raises:
        UserError: the batch cannot be divided among the processes.
    """
    if batch % count():
        raise UserError(f"a batch of {batch} cannot be divided among {count()} processes; choose a multiple of it")
    return batch // count()


def barrier() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def main_first() -> Generator[None]:
    """The main process goes through the block before the others do."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def on_main(task: Callable[[], T]) -> T:
    """What the task returns in the main process, in all; a `UserError` there is raised in all, and told once."""
    result: tuple[T | None, UserError | None] = (None, None)
    if is_main():
        try:
            result = task(), None
        except UserError as error:
            if count() == 1:
                raise
            result = None, error
    value, error = from_main(result)
    if error is not None:
        error.told = not is_main()
        raise error
    return value  # type: ignore[return-value]


def from_main(value: T) -> T:
    """The main process's value, in all processes."""
    if count() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gathered(value: T) -> list[T]:
    """All processes' values, in the order of the processes."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def total(value: Tensor) -> Tensor:
    """The sum over all processes; the gradient reaches all of them."""
    if count() == 1:
        return value
    return _Total.apply(value)


class _Total(torch.autograd.Function):
    """The gradient of a sum over processes is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.contiguous().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        return _Total.apply(*gradient)


def mean(value: Tensor) -> Tensor:
    """The mean over all processes, without gradient."""
    return total(value.detach()) / count()


def largest(value: int) -> int:
    """The largest of all processes' values; goes by the CPU, so that no GPU is waited for."""
    if count() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


@torch.no_grad()
def logsumexp(value_NK: Tensor) -> Tensor:
    """log Σ exp over the rows of all processes, (K,)."""
    own_K = value_NK.logsumexp(dim=0)
    return torch.stack(_everyones(own_K)).logsumexp(dim=0) if count() > 1 else own_K


def fetch(maps_BChw: Tensor, chosen_N: Tensor) -> Tensor:
    """Cells of all processes' maps, N x C; the gradient reaches those who have them.

    Args:
        maps_BChw: this process's maps, as many as any other's. Only the chosen cells are copied.
        chosen_N: numbers of cells, counted row by row through the maps of all processes; the same in all.
    """
    images, cells = len(maps_BChw), maps_BChw.shape[2] * maps_BChw.shape[3]
    own_N = chosen_N - rank() * images * cells
    mine_N = (own_N >= 0) & (own_N < images * cells)
    own_N = own_N.where(mine_N, 0)
    rows_NC = maps_BChw.flatten(2).movedim(1, 2)[own_N // cells, own_N % cells]
    return total(rows_NC.where(mine_N[:, None], 0)) if count() > 1 else rows_NC


@torch.no_grad()
def gather_rows(value_NX: Tensor) -> Tensor:
    """The rows of all processes, of which each has as many, in their order."""
    return torch.cat(_everyones(value_NX)) if count() > 1 else value_NX


@torch.no_grad()
def gather_rows_each(value_NX: Tensor) -> list[Tensor]:
    """The rows of each process; one may have another number of them than the next."""
    if count() == 1:
        return [value_NX]
    lengths = gathered(len(value_NX))
    padded = value_NX.new_zeros(max(lengths), *value_NX.shape[1:])
    padded[: len(value_NX)] = value_NX
    return [rows[:length] for rows, length in zip(_everyones(padded), lengths, strict=True)]


def _everyones(value: Tensor) -> list[Tensor]:
    """All processes' tensors of one shape, in the order of the processes."""
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(parts, value.contiguous())
    return parts


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give all processes the mean of their gradients, a bucket at a time.

    Not DistributedDataParallel: a step may pass a network several times or not at all, and the prototypes belong to
    no network. One exchange after the backward pass serves all of them.
    """
    if count() == 1:
        return
    waiting = []
    for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([grad.reshape(-1) for grad in bucket])
        waiting.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in waiting:
        work.wait()
        for grad, mean in zip(bucket, flat.div_(count()).split([g.numel() for g in bucket]), strict=True):
            grad.copy_(mean.view_as(grad))


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in their order, about `BUCKET` bytes at a time, of one type each."""
    bucket: list[Tensor] = []
    for grad in grads:
        full = sum(g.numel() * g.element_size() for g in bucket) >= BUCKET
        if bucket and (full or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket


def whole_batch_statistics() -> AbstractContextManager[Any]:
    """Within the block BatchNorm in train mode uses the statistics of all processes' images."""
    return _WholeBatch() if count() > 1 else nullcontext()


class _WholeBatch(TorchFunctionMode):
    """Takes the place of ``F.batch_norm``, so that networks of any kind keep their modules and names."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    weight = x.new_ones(x.shape[1], dtype=_statistics_type(x)) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    y, mean_C, var_C = _Normalised.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        pixels = x.numel() / x.shape[1] * count()
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean), momentum)
            running_var.lerp_((var_C * (pixels / max(pixels - 1, 1))).to(running_var), momentum)
    return y


class _Normalised(torch.autograd.Function):
    """BatchNorm by the statistics of all processes' pixels: torch's own kernels, with an exchange in each direction.

    The exchanges are of float64. Forwards these are mean and mean square, whose difference then loses nothing of the
    variance that float32 would hold, however far from 0 the mean lies.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(_statistics_type(x))
        # BatchNorm's own: torch.var_mean takes 12 to 45 times as long on a CPU where channels come last.
        mean_C, var_C = (value_C.double() for value_C in torch.batch_norm_update_stats(wide, None, None, 0.0))
        mean_C, square_C = total(torch.stack([mean_C, var_C + mean_C.square()])) / count()
        var_C = (square_C - mean_C.square()).clamp(min=0)
        mean_C, var_C = mean_C.to(wide), var_C.to(wide)
        ctx.save_for_backward(x, weight_C, mean_C, var_C)
        ctx.mark_non_differentiable(mean_C, var_C)
        ctx.eps = eps
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, False, 0.0, eps), mean_C, var_C

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight_C, mean_C, var_C = ctx.saved_tensors
        scale_C = (var_C + ctx.eps).rsqrt()
        # First as if mean and variance were constants, which gives the sums that their own gradients need.
        gradient, weight_grad_C, bias_grad_C = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight_C, mean_C, var_C, None, None, False, ctx.eps, [True, True, True]
        )
        sums_2C = total(torch.stack([weight_grad_C, bias_grad_C]).double()) / (x.numel() / x.shape[1] * count())
        by_spread_C, by_mean_C = (-scale_C * weight_C * sums_2C).to(mean_C)
        shape = [1, -1] + [1] * (x.ndim - 2)
        centred = x - mean_C.view(shape).to(x)
        gradient.addcmul_(centred, (scale_C * by_spread_C).view(shape).to(x)).add_(by_mean_C.view(shape).to(x))
        return gradient, weight_grad_C, bias_grad_C, None


def _statistics_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
