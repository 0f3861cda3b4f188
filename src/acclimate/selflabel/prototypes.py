"""Class prototypes: a learned direction per class in feature space, and its moving average."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import distributed
from acclimate.selflabel.precision import wide


def similarity(feat_ND: Tensor, proto_KD: Tensor) -> Tensor:
    """Cosine similarities N x K of features (any scale) and prototypes (any scale), in float32."""
    return dot_similarity(F.normalize(wide(feat_ND), dim=-1), F.normalize(wide(proto_KD), dim=-1))


def similarity_map(feat_BDhw: Tensor, proto_KD: Tensor) -> Tensor:
    """Cosine similarities B x K x h x w of a feature map and prototypes, in float32."""
    feat_BDhw, unit_KD = wide(feat_BDhw), F.normalize(wide(proto_KD), dim=-1)
    # Divided by the lengths afterwards: K channels instead of D, and no copy of the map is kept for the backward pass.
    length_B1hw = feat_BDhw.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return F.conv2d(feat_BDhw, unit_KD[:, :, None, None]) / length_B1hw


def cluster_probabilities(feat_BDhw: Tensor, proto_KD: Tensor, temperature: float) -> Tensor:
    """softmax(cos / temperature) over classes, B x K x h x w: the soft cluster membership (paper Eq. 3)."""
    return (similarity_map(feat_BDhw, proto_KD) / temperature).softmax(dim=1)


def dot_similarity(unit_ND: Tensor, proto_KD: Tensor) -> Tensor:
    """Products N x K of unit features and prototypes as long as they are, in float32."""
    return (wide(proto_KD) @ wide(unit_ND).T).T  # a class after the other in memory, as `sinkhorn` takes it fastest


class Prototypes(nn.Module):
    """Prototypes W, learned by the self-labelling loss, and their average W', which rectifies.

    Args:
        initial_KD: starting directions; scaled to length 1, W = W' at the start. The gradient of a cosine
            grows as a prototype gets shorter, so that its length sets how fast it learns.
        momentum: of the average, in 0 … 1 (exclusive). The first updates average faster, as for networks.
    """

    def __init__(self, initial_KD: Tensor, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        unit_KD = F.normalize(initial_KD.detach().float(), dim=1)
        self.weight_KD = nn.Parameter(unit_KD)
        self.average_KD: Tensor
        self.register_buffer("average_KD", unit_KD.clone())

    @torch.no_grad()
    def update(self) -> None:
        """Let the average follow W by one step."""
        self.average_KD.lerp_(self.weight_KD, 1 - self.momentum)


class PrototypeMeans:
    """Mean feature per predicted class: a mean over pixels within each image, then over images.

    Averaging within images first keeps a few images full of one class from outweighing the rest. Classes
    with fewer than ``min_pixels`` pixels in an image are skipped there, being noise more often than not.

    The sums stay where the features are, so that no image waits for the one before to leave a GPU.
    """

    def __init__(self, classes: int, channels: int, min_pixels: int = 10) -> None:
        self.min_pixels = min_pixels
        self.sum_KD = torch.zeros(classes, channels, dtype=torch.float64)
        self.images_K = torch.zeros(classes, dtype=torch.float64)
        self.pixels_K = torch.zeros(classes, dtype=torch.float64)
        """How many pixels this process has seen predicted as each class."""

    @torch.no_grad()
    def add(self, feat_BDhw: Tensor, logits_BKhw: Tensor) -> None:
        """Take in the images of a batch, each under its own predictions."""
        classes = len(self.images_K)
        member_BKP = F.one_hot(logits_BKhw.argmax(dim=1).flatten(1), classes).float().transpose(1, 2)
        pixels_BK = member_BKP.sum(dim=2)
        sum_BKD = member_BKP @ feat_BDhw.float().flatten(2).transpose(1, 2)
        counted_BK = pixels_BK >= self.min_pixels
        mean_BKD = sum_BKD / pixels_BK.clamp(min=1)[..., None] * counted_BK[..., None]
        new = (mean_BKD, counted_BK, pixels_BK)
        own = (self.sum_KD, self.images_K, self.pixels_K)
        self.sum_KD, self.images_K, self.pixels_K = (
            total.to(values.device) + values.sum(dim=0).double() for total, values in zip(own, new, strict=True)
        )

    def means(self, fallback_KD: Tensor | None = None) -> Tensor:
        """Prototypes K x D, float32, of all processes' images.

        A class never seen takes its row of ``fallback_KD``, or zeros.
        """
        # On the CPU: a process without images has its sums there, whatever the others' features lie on.
        images_K1 = distributed.total(self.images_K.cpu())[:, None]
        mean_KD = (distributed.total(self.sum_KD.cpu()) / images_K1.clamp(min=1)).float()
        if fallback_KD is None:
            return mean_KD
        return torch.where(images_K1 > 0, mean_KD, fallback_KD.detach().float().cpu())
