"""Online rectification: cluster membership corrects the soft pseudo labels."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from acclimate.selflabel.prototypes import cluster_probabilities


class Rectified(NamedTuple):
    """Corrected pseudo labels of a batch."""

    label_Bhw: Tensor
    """Most likely class, int64."""
    confidence_Bhw: Tensor
    """Its probability, 0 … 1."""
    weight_BKhw: Tensor
    """Cluster probabilities that did the correction."""


@torch.no_grad()
def rectify(
    soft_BKhw: Tensor,
    feat_BDhw: Tensor,
    proto_KD: Tensor,
    temperature: float = 0.08,
    reach_K: Tensor | None = None,
    into_K: Tensor | None = None,
) -> Rectified:
    """Pseudo labels from p ∝ softmax(cos(feature, prototype) / temperature) * soft label (paper Eq. 4 and 5).

    Args:
        soft_BKhw: soft pseudo labels of the initialisation, not negative, in the frame of the features.
        feat_BDhw: teacher features.
        proto_KD: averaged prototypes.
        reach_K, into_K: see `corrected`.
    """
    weight_BKhw = cluster_probabilities(feat_BDhw, proto_KD, temperature)
    product_BKhw = corrected(soft_BKhw, weight_BKhw, reach_K, into_K)
    confidence_Bhw, label_Bhw = product_BKhw.max(dim=1)
    total_Bhw = product_BKhw.sum(dim=1).clamp(min=torch.finfo(product_BKhw.dtype).tiny)
    return Rectified(label_Bhw, confidence_Bhw / total_Bhw, weight_BKhw)


def corrected(
    soft_BKhw: Tensor, weight_BKhw: Tensor, reach_K: Tensor | None = None, into_K: Tensor | None = None
) -> Tensor:
    """Soft labels times cluster probabilities, not normalised.

    Args:
        soft_BKhw: soft pseudo labels.
        weight_BKhw: cluster probabilities of the same cells.
        reach_K: how far the clusters may correct a cell, 0 (not at all) … 1 (as in the paper), by the class that its
            soft label holds for most likely; None: 1 for all. It is the power of the cluster probabilities.
        into_K: how far they may move cells into each class, 0 … 1; None: 1 for all. It is the power, on top of
            that, of the odds between the class and the one that the soft label holds for most likely.
    """
    if reach_K is None and into_K is None:
        return weight_BKhw * soft_BKhw
    class_B1hw = soft_BKhw.argmax(dim=1, keepdim=True)
    if into_K is not None:
        log_BKhw = weight_BKhw.clamp(min=torch.finfo(weight_BKhw.dtype).tiny).log()
        odds_BKhw = log_BKhw - log_BKhw.gather(1, class_B1hw)
        weight_BKhw = (into_K.to(weight_BKhw)[:, None, None] * odds_BKhw).exp()
    if reach_K is not None:
        weight_BKhw = weight_BKhw ** reach_K.to(weight_BKhw)[class_B1hw]
    return weight_BKhw * soft_BKhw


def reach(distribution_K: Tensor) -> Tensor:
    """How far to trust clusters with pixels of each class, (K,), 0 … 1: K times its share, at most 1.

    A transport that knows of a class no more than its share fills it with what lies nearest, and the prototype
    follows. Where the share is small that is soon something else (docs/lab-notes.md).
    """
    return (len(distribution_K) * distribution_K).clamp(max=1)


def limits(by: Literal["share", "both", "alike"], distribution_K: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """`reach_K` and `into_K` of `corrected`: by the classes' shares, those out of them alone or both; or none."""
    reach_K = None if by == "alike" else reach(distribution_K)
    return reach_K, reach_K if by == "both" else None
