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
def rectify(soft_BKhw: Tensor, feat_BDhw: Tensor, proto_KD: Tensor, temperature: float = 0.08) -> Rectified:
    """Pseudo labels from p ∝ softmax(cos(feature, prototype) / temperature) * soft label (paper Eq. 4 and 5).

    Args:
        soft_BKhw: soft pseudo labels of the initialisation, not negative, in the frame of the features.
        feat_BDhw: teacher features.
        proto_KD: averaged prototypes.
    """
    weight_BKhw = cluster_probabilities(feat_BDhw, proto_KD, temperature)
    product_BKhw = weight_BKhw * soft_BKhw
    confidence_Bhw, label_Bhw = product_BKhw.max(dim=1)
    total_Bhw = product_BKhw.sum(dim=1).clamp(min=torch.finfo(product_BKhw.dtype).tiny)
    return Rectified(label_Bhw, confidence_Bhw / total_Bhw, weight_BKhw)
