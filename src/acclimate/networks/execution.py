"""How a network is carried out while it learns: order of its values in memory, recomputation, compilation.

Nothing of it belongs to the weights: tensors have the same names and shapes with every choice, and a model that is
loaded knows nothing of how it was trained.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from acclimate import distributed, recipe
from acclimate.devices import give_back_memory
from acclimate.errors import UserError
from acclimate.networks.segmenter import Segmenter


def arrange(network: Segmenter, choices: recipe.Network, one_size: bool = True) -> None:
    """Have a network that learns, or teaches meanwhile, carried out as the recipe says.

    Args:
        network: changed in place.
        choices: of the recipe that is trained by, which may differ from those that the network was made from.
        one_size: whether it will see images of one size: each size is compiled for itself, so others are not.

    Raises:
        UserError: ``checkpointing``, and the backbone has no blocks to compute anew.
    """
    network.lay_out(torch.channels_last if choices.channels_last else torch.contiguous_format)
    if choices.checkpointing:
        recompute_blocks(network)
        give_back_memory()
    if choices.compile and one_size:
        # Dropout draws from torch's generator, as it does uncompiled.
        network.compile(dynamic=False, options={"fallback_random": True})


def require_compiler(device: torch.device) -> None:
    """See that ``network.compile`` can be done here, by doing it to something small.

    Raises:
        UserError: it cannot, or not with so many processes.
    """
    if distributed.count() > 1:
        raise UserError(
            "network.compile: BatchNorm's statistics of many processes cannot be compiled; leave it out, or start one"
        )
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler's, the linker's, Python's headers', Triton's: whatever is missing
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"network.compile: this machine cannot compile for {device.type} ({reason}); install a C++ "
            "compiler (g++) and Python's headers, on GPUs Triton, or leave it out"
        ) from error


def recompute_blocks(network: Segmenter) -> None:
    """Keep no more than the inputs of the backbone's blocks for the backward pass, which computes the rest anew.

    Raises:
        UserError: the backbone has no such blocks.
    """
    for block in blocks(network, "network.checkpointing"):
        # No module around the block, which would rename its tensors; and a copied block takes its own partial along.
        block.forward = partial(_recomputed, block)


def blocks(network: Segmenter, key: str) -> list[nn.Module]:
    """The blocks of which the backbone is a sequence, in order.

    Raises:
        UserError: there are none; ``key`` is what in the recipe asks for them.
    """
    backbone = [part for name, part in network.named_children() if name not in network.HEAD]
    found = [block for part in backbone for block in _blocks(part)]
    if not found:
        raise UserError(
            f"{key}: {network.choices.backbone} is no sequence of blocks; leave it out, or choose another backbone"
        )
    return found


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of a network's sequences that are made of several layers, but no sequences themselves."""
    for part in module.children():
        sequence = isinstance(part, (nn.Sequential, nn.ModuleList))
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and any(part.children()) and not sequence:
            yield part
        else:
            yield from _blocks(part)


def _recomputed(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    forward = type(block).forward
    if any(isinstance(x, list) for x in inputs):  # HRNet's blocks change the lists they are given
        return forward(block, *inputs, **named)
    if torch.compiler.is_compiling():  # what is compiled changes BatchNorm's statistics once by itself
        return checkpoint(forward, block, *inputs, use_reentrant=False, **named)
    return checkpoint(forward, block, *inputs, use_reentrant=False, context_fn=partial(_contexts, block), **named)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What surrounds a block's first pass, and its second."""
    return nullcontext(), _second_pass(block)


@contextmanager
def _second_pass(block: nn.Module) -> Generator[None]:
    """Let BatchNorm change copies of its statistics, which have taken in this batch already.

    The statistics are those of all processes again: the backward pass is outside of the block that saw to it.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if own is None else own.clone() for name, own in norm._buffers.items()})
    try:
        with distributed.whole_batch_statistics():
            yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
