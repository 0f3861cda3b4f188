"""The paper's network against the official one, with weights that follow the rule of the golden README."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from acclimate.networks.deeplab import DeepLab

Golden = Callable[[str], dict[str, Any]]


@torch.no_grad()
def test_deeplab_is_the_official_network(golden: Golden) -> None:
    """Keys, shapes and outputs in eval mode, with the extra BatchNorm and without."""
    network = DeepLab(19, extra_norm=True).eval()
    network.load_state_dict({k: official_weight(k, v) for k, v in network.state_dict().items()})
    for extra_norm in (1, 0):
        if not extra_norm:
            network.bn_pretrain = torch.nn.Identity()
        case = golden(f"network_bn_clr_{extra_norm}")
        state = network.state_dict()
        assert list(state) == list(case["keys"])
        assert [str(tuple(v.shape)) for v in state.values()] == list(case["shapes"])
        logits, feat = network(case["image"])
        for ours, official in ((logits, case["out"]), (feat[:, :, ::3, ::3], case["feat"])):
            assert ours.shape == official.shape
            assert (ours - official).abs().max() < 1e-4 * official.abs().max()


def official_weight(key: str, like: torch.Tensor) -> torch.Tensor:
    """The golden README's rule for the weights."""
    shape = tuple(like.shape)
    x = np.random.default_rng(zlib.crc32(f"shared:{key}".encode())).standard_normal(shape)
    if key.endswith("running_var"):
        x = 0.5 + np.abs(x)
    elif key.endswith("num_batches_tracked"):
        x = np.zeros(shape)
    elif key.endswith("running_mean"):
        x = 0.1 * x
    elif key.endswith("weight") and len(shape) == 1:
        x = 1 + 0.1 * x
    elif key.endswith("bias"):
        x = 0.05 * x
    else:
        x = 0.7 * x * math.sqrt(2 / math.prod(shape[1:]))
    return torch.as_tensor(x, dtype=like.dtype)
