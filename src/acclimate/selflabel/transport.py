"""Sinkhorn assignments: optimal transport of pixels to classes under a given class distribution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate import distributed
from acclimate.selflabel.precision import wide


@torch.no_grad()
def sinkhorn(
    scores_NK: Tensor,
    distribution_K: Tensor,
    epsilon: float = 0.05,
    iterations: int = 3,
    remembered_MK: Tensor | None = None,
) -> Tensor:
    """Soft assignments of N pixels to K classes (paper Eq. 6 with the class prior of Eq. 12).

    Approaches the plan Q that maximises <Q, scores> + epsilon * entropy(Q) among those where every pixel
    carries the same mass and class k receives the share ``distribution_K[k]``. In float32 at least, and safe for
    any epsilon, half precision, and classes that no pixel is near.

    Args:
        scores_NK: similarity of pixels and classes; cosine similarities in [-1, 1] here.
        distribution_K: share of each class, not negative; scaled to sum to 1. A class of share 0 gets nothing.
        epsilon: weight of the entropy, > 0; the smaller the harder the assignments.
        iterations: alternations of class and pixel normalisation. The pixels come last, so that rows are
            exact distributions while the class shares are met up to the convergence reached. At least 1.
        remembered_MK: scores of further pixels that take part, such as those of a memory bank. With many
            processes each gives its own part of them, while ``scores_NK`` are the same in all.

    Returns:
        N x K float32 (float64 for such scores), rows sum to 1. All NaN if no class has a share: to tell would mean
        to wait for the device, and the loss tells.
    """
    scores_NK = wide(scores_NK)
    share_K = distribution_K.to(scores_NK)
    share_K = share_K / share_K.sum()
    remembered_MK = scores_NK[:0] if remembered_MK is None else remembered_MK.to(scores_NK)
    # All R pixels, a class in a row: sums over pixels then run along the memory, which is several times as fast.
    logits_KR = scores_NK.new_empty(len(share_K), len(scores_NK) + len(remembered_MK))
    own, rest = slice(len(scores_NK)), slice(len(scores_NK), None)
    torch.div(scores_NK.T, epsilon, out=logits_KR[:, own])
    torch.div(remembered_MK.T, epsilon, out=logits_KR[:, rest])
    weight_R = torch.ones_like(logits_KR[0])
    weight_R[own] /= distributed.count()  # what all processes have alike counts once
    logits_KR[:, own] -= math.log(distributed.count())
    with torch.autocast(scores_NK.device.type, enabled=False):
        plan_KR, factor_K, factor_R = _scaled(logits_KR, weight_R, share_K, iterations)
    return (plan_KR[:, own] * factor_K[:, None]).mul_(factor_R[own]).T


def _scaled(logits_KR: Tensor, weight_R: Tensor, share_K: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """A plan and factors of its classes and pixels, which make it that of so many iterations from exp(logits).

    The first of every three iterations works on logarithms, for which nothing is too large or too small. The two
    after it are products with its plan. No sum vanishes there: its pixels sum to 1, and a class of share s has an
    entry of s / R at least, since its entries had that mean before pixels were scaled, none of them down. Uses the
    logits up: they are large, and memory that is new costs more than the arithmetic.
    """

    def begun(log_factor_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        plan_KR = logits_KR.add_(log_factor_K[:, None]).softmax(dim=0)
        return plan_KR, torch.ones_like(share_K), torch.ones_like(weight_R)

    tiny = torch.finfo(share_K.dtype).tiny
    plan_KR, factor_K, factor_R = begun(share_K.log() - distributed.logsumexp(logits_KR.T))
    for iteration in range(1, iterations):
        mass_K = distributed.total(plan_KR @ (weight_R * factor_R))
        factor_K = F.normalize(share_K / mass_K.clamp(min=tiny), p=1, dim=0)  # only their ratios matter
        if iteration % 3:
            factor_R = 1 / (factor_K @ plan_KR).clamp(min=tiny)
        else:
            plan_KR, factor_K, factor_R = begun(factor_K.log())
    return plan_KR, factor_K, factor_R
