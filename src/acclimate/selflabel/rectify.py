"""Online rectification: cluster membership corrects the soft pseudo labels."""

from __future__ import annotations

from typing import NamedTuple

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
) -> Rectified:
    """Pseudo labels from p ∝ softmax(cos(feature, prototype) / temperature) * soft label (paper Eq. 4 and 5).

    Args:
        soft_BKhw: soft pseudo labels of the initialisation, not negative, in the frame of the features.
        feat_BDhw: teacher features.
        proto_KD: averaged prototypes.
        reach_K: see `corrected`.
    """
    weight_BKhw = cluster_probabilities(feat_BDhw, proto_KD, temperature)
    product_BKhw = corrected(soft_BKhw, weight_BKhw, reach_K)
    confidence_Bhw, label_Bhw = product_BKhw.max(dim=1)
    total_Bhw = product_BKhw.sum(dim=1).clamp(min=torch.finfo(product_BKhw.dtype).tiny)
    return Rectified(label_Bhw, confidence_Bhw / total_Bhw, weight_BKhw)


def corrected(soft_BKhw: Tensor, weight_BKhw: Tensor, reach_K: Tensor | None = None) -> Tensor:
    """Soft labels times cluster probabilities, not normalised.

    Args:
        soft_BKhw: soft pseudo labels.
        weight_BKhw: cluster probabilities of the same cells.
        reach_K: how far the clusters may move cells out of each class and into it, 0 (not at all) … 1 (as in the
            paper); None: 1 for all. Between the class c that the soft label holds for most likely and another one k
            the odds of the cluster probabilities count to the power reach_c reach_k.
    """
    if reach_K is None:
        return weight_BKhw * soft_BKhw
    reach_K = reach_K.to(weight_BKhw)
    class_B1hw = soft_BKhw.argmax(dim=1, keepdim=True)
    log_BKhw = weight_BKhw.clamp(min=torch.finfo(weight_BKhw.dtype).tiny).log()
    odds_BKhw = log_BKhw - log_BKhw.gather(1, class_B1hw)
    return (reach_K[class_B1hw] * reach_K[:, None, None] * odds_BKhw).exp() * soft_BKhw


def reach(distribution_K: Tensor) -> Tensor:
    """How far to trust clusters with pixels of each class, (K,), 0 … 1: K times its share, at most 1.

    A transport that knows of a class no more than its share fills it with what lies nearest, and the prototype
    follows. Where the share is small that is soon something else (docs/lab-notes.md).
    """
    return (len(distribution_K) * distribution_K).clamp(max=1)
