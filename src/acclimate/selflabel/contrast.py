"""The contrast of pixels with a memory bank, which the official implementation has beside the paper's losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from acclimate import distributed
from acclimate.selflabel.precision import wide

BANK_PART = 1024
"""Features of a memory bank that pixels are compared with at once: few enough for a processor's cache."""


def contrast(
    feat_ND: Tensor, label_N: Tensor, bank_MD: Tensor, bank_label_M: Tensor, temperature: float = 0.08
) -> Tensor:
    """Contrastive loss of pixels and a memory bank: close to the features of one's class, far from all others.

    For each pixel the mean, over the features of its label, of -log(e / (e + n)) with e = exp(cos / temperature)
    and n the sum of the same over the features of other labels (supervised contrast, Khosla et al. 2020, as the
    official implementation has it). A pixel whose label is not in the bank adds 0. Mean over pixels, which are the
    same in all processes, while each has its part of the bank. Labels are 0 … 255.
    """
    unit_ND, bank_MD = (F.normalize(wide(x), dim=1) for x in (feat_ND, bank_MD.detach()))
    return _Contrast.apply(unit_ND, label_N, bank_MD, bank_label_M, temperature)


class _Contrast(torch.autograd.Function):
    """Value and gradient in one go: both need the products of all pixels with all of the bank, a hundred million.

    Ordered by class, the features of one's own class lie side by side, and so do those of the others: no product is
    masked, and what is done to each of them is done to those alone that need it.
    """

    @staticmethod
    def forward(
        ctx: Any, unit_ND: Tensor, label_N: Tensor, bank_MD: Tensor, bank_label_M: Tensor, temperature: float
    ) -> Tensor:
        order_N, order_M = label_N.argsort(stable=True), bank_label_M.argsort(stable=True)
        unit_ND, bank_MD = unit_ND[order_N], bank_MD[order_M]
        classes = [(own, same) for own, same in _slices(label_N, bank_label_M) if own.start < own.stop]

        def logits(own: slice, part_PD: Tensor) -> Tensor:
            return (unit_ND[own] @ part_PD.T).sub_(1).div_(temperature)  # at most 0, the ratio is the same

        others_N, others_ND = torch.zeros_like(unit_ND[:, 0]), torch.zeros_like(unit_ND)
        for own, same in classes:
            for others_MD in (bank_MD[: same.start], bank_MD[same.stop :]):
                for part_PD in others_MD.split(BANK_PART):
                    exp_nP = logits(own, part_PD).exp_()
                    others_N[own] += exp_nP.sum(dim=1)
                    others_ND[own] += exp_nP @ part_PD
        others_N = distributed.total(others_N).clamp(min=torch.finfo(unit_ND.dtype).tiny)
        log_others_N = others_N.log()

        log_prob_N, wrong_N, same_N = torch.zeros(3, len(unit_ND), dtype=unit_ND.dtype, device=unit_ND.device)
        same_ND = torch.zeros_like(unit_ND)
        for own, same in classes:
            same_N[own] += same.stop - same.start
            for part_PD in bank_MD[same].split(BANK_PART):
                margin_nP = logits(own, part_PD) - log_others_N[own, None]
                log_prob_N[own] += F.logsigmoid(margin_nP).sum(dim=1)
                wrong_nP = margin_nP.neg_().sigmoid_()  # n / (e + n)
                wrong_N[own] += wrong_nP.sum(dim=1)
                same_ND[own] += wrong_nP @ part_PD
        log_prob_N, wrong_N, same_N = distributed.total(torch.stack([log_prob_N, wrong_N, same_N]))

        pixels, same_N = max(len(unit_ND), 1), same_N.clamp(min=1)
        push_ND = others_ND * (wrong_N / others_N)[:, None] - same_ND
        gradient_ND = torch.empty_like(push_ND)
        gradient_ND[order_N] = push_ND / (pixels * temperature * same_N)[:, None]
        ctx.save_for_backward(gradient_ND)
        return -(log_prob_N / same_N).sum() / pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Any) -> Any:  # pyrefly: ignore[bad-override]
        # All processes' losses depend on this one's part of the bank.
        return distributed.total(gradient[0]) * ctx.saved_tensors[0], None, None, None, None


def _slices(*labels: Tensor) -> zip[tuple[slice, ...]]:
    """For each class where its entries are in each of several lists of labels, once these are in order."""
    ends = torch.stack([label_N.bincount(minlength=256).cumsum(0) for label_N in labels]).tolist()
    return zip(*([slice(a, b) for a, b in zip([0, *row], row, strict=False)] for row in ends), strict=True)
