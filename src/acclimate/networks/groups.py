"""Which parameters of a network learn at which rate, and which of them decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from acclimate.networks.execution import blocks
from acclimate.networks.segmenter import Segmenter


def groups(
    network: Segmenter, lr: float, head_lr: float, layer_decay: float = 1.0, decay_all: bool = True
) -> list[dict[str, Any]]:
    """The parameters in groups as optimisers take them: the backbone's, from its stem on, then the head's.

    Args:
        network: whose parameters they are.
        lr: rate of the backbone's deepest block, and of all of it where ``layer_decay`` is 1.
        head_lr: rate of the head.
        layer_decay: rate of a block relative to the next deeper one (Bao et al., BEiT, 2022).
        decay_all: False: biases, normalisations, position embeddings and tokens are left out of the weight decay.

    Raises:
        UserError: ``layer_decay``, and the backbone has no blocks.
    """
    head = {id(parameter) for parameter in network.head_parameters()}
    rates = _rates(network, lr, layer_decay) if layer_decay != 1 else {}
    found: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        is_head = id(parameter) in head
        rate = head_lr if is_head else rates.get(id(parameter), lr)
        found.setdefault((is_head, rate, decay_all or _decays(name, parameter)), []).append(parameter)
    in_order = sorted(found.items(), key=lambda group: group[0][0])  # the head last, the rest as they come
    return [
        {"params": parameters, "lr": rate} | ({} if decays else {"weight_decay": 0.0})
        for (_, rate, decays), parameters in in_order
    ]


def _rates(network: Segmenter, lr: float, layer_decay: float) -> dict[int, float]:
    """Rate of each of the backbone's parameters, by id: what lies between two blocks learns as the earlier one."""
    parts = blocks(network, "optimizer.layer_decay")
    first = {id(next(block.parameters(), None)) for block in parts}
    begun, rates = 0, {}
    for parameter in network.backbone_parameters():
        begun += id(parameter) in first
        rates[id(parameter)] = lr * layer_decay ** (len(parts) - begun)
    return rates


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a kernel or a matrix: position embeddings and tokens are of several dimensions, but no weights."""
    return name.endswith("weight") and parameter.ndim > 1
