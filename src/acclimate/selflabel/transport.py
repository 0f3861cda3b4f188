"""Sinkhorn assignments: optimal transport of pixels to classes under a given class distribution."""

from __future__ import annotations

import torch
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
    carries the same mass and class k receives the share ``distribution_K[k]``. Works on logarithms in
    float32 at least, so that neither a small epsilon nor half precision overflows.

    Args:
        scores_NK: similarity of pixels and classes; cosine similarities in [-1, 1] here.
        distribution_K: share of each class, not negative; scaled to sum to 1. A class of share 0 gets nothing.
        epsilon: weight of the entropy, > 0; the smaller the harder the assignments.
        iterations: alternations of class and pixel normalisation. The pixels come last, so that rows are
            exact distributions while the class shares are met up to the convergence reached. At least 1.
        remembered_MK: scores of further pixels that take part, such as those of a memory bank. With many
            processes each gives its own part of them, while ``scores_NK`` are the same in all.

    Returns:
        N x K float32 (float64 for such scores), rows sum to 1.

    Raises:
        ValueError: no class has a positive share.
    """
    scores_NK = wide(scores_NK)
    share_K = distribution_K.to(scores_NK)
    present_K = share_K > 0
    if not bool(present_K.any()):
        raise ValueError("the class distribution has no positive entry")
    log_share_K = (share_K / share_K.sum())[present_K].log()
    remembered_MK = scores_NK[:0] if remembered_MK is None else remembered_MK.to(scores_NK)
    log_plan_NK, log_rest_MK = (scores[:, present_K] / epsilon for scores in (scores_NK, remembered_MK))
    for _ in range(iterations):
        log_factor_K = log_share_K - _mass(log_plan_NK, log_rest_MK)
        log_plan_NK = (log_plan_NK + log_factor_K).log_softmax(dim=1)
        log_rest_MK = (log_rest_MK + log_factor_K).log_softmax(dim=1)
    assign_NK = torch.zeros_like(scores_NK)
    assign_NK[:, present_K] = log_plan_NK.exp()
    return assign_NK


def _mass(log_plan_NK: Tensor, log_rest_MK: Tensor) -> Tensor:
    """log of what each class receives from the current pixels and from all processes' remembered ones, (K,)."""
    if distributed.count() == 1:
        return torch.cat([log_rest_MK, log_plan_NK]).logsumexp(dim=0)
    return torch.logaddexp(log_plan_NK.logsumexp(dim=0), distributed.logsumexp(log_rest_MK))
