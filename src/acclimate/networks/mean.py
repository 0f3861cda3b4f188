"""The mean of networks that training has taken from one to the next (model soups: Wortsman et al., ICML 2022)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from acclimate.networks.segmenter import Segmenter


@torch.no_grad()
def mean_network(networks: Sequence[Segmenter]) -> Segmenter:
    """A network with the means of the others' weights and of their BatchNorm's averages; counters are the first's.

    Args:
        networks: one or more of the same build, none of which is changed. Of networks that began apart the mean is
            of no use: their channels have nothing to do with each other.
    """
    mean = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    for key, own in mean.state_dict().items():
        if own.is_floating_point():
            own.copy_(torch.stack([state[key] for state in states]).mean(dim=0))
    return mean
