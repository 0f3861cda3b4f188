"""Sinkhorn assignments: optimal transport of pixels to classes under a given class distribution."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores_NK: Tensor, distribution_K: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments of N pixels to K classes (paper Eq. 6 with the class prior of Eq. 12).

    Approaches the plan Q that maximises <Q, scores> + epsilon * entropy(Q) among those where every pixel
    carries the same mass and class k receives the share ``distribution_K[k]``. Works on logarithms in
    float32 whatever the input's type, so that neither a small epsilon nor half precision overflows.

    Args:
        scores_NK: similarity of pixels and classes; cosine similarities in [-1, 1] here.
        distribution_K: share of each class, not negative; scaled to sum to 1. A class of share 0 gets nothing.
        epsilon: weight of the entropy, > 0; the smaller the harder the assignments.
        iterations: alternations of class and pixel normalisation. The pixels come last, so that rows are
            exact distributions while the class shares are met up to the convergence reached. At least 1.

    Returns:
        N x K float32, rows sum to 1.

    Raises:
        ValueError: no class has a positive share.
    """
    share_K = distribution_K.to(scores_NK.device, torch.float32)
    present_K = share_K > 0
    if not bool(present_K.any()):
        raise ValueError("the class distribution has no positive entry")
    log_share_K = (share_K / share_K.sum())[present_K].log()
    log_plan_NK = scores_NK.float()[:, present_K] / epsilon
    for _ in range(iterations):
        log_plan_NK = log_plan_NK + (log_share_K - log_plan_NK.logsumexp(dim=0))
        log_plan_NK = log_plan_NK.log_softmax(dim=1)
    assign_NK = torch.zeros_like(scores_NK, dtype=torch.float32)
    assign_NK[:, present_K] = log_plan_NK.exp()
    return assign_NK
