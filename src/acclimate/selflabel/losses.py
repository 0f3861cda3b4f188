"""The losses of CPSL as pure functions. Means are over pixels; every weight in a recipe means that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from acclimate import distributed
from acclimate.selflabel.precision import wide
from acclimate.selflabel.prototypes import dot_similarity, similarity

BANK_PART = 2048
"""Features of a memory bank that pixels are compared with at once."""


def masked_mean(value: Tensor, valid: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean of the values where ``valid``; 0 (with a gradient of 0) if there are none.

    ``weight`` multiplies each value, and does not count in the mean: little trust is a small loss.

    With many processes the mean over all of theirs is that of the whole batch: each divides by the same number.
    """
    value = value if weight is None else value * weight
    if valid is None:
        return value.mean()
    share = distributed.total(valid.sum()).clamp(min=1) / distributed.count()
    return torch.where(valid, value, 0).sum() / share


def cross_entropy(
    logits_BKhw: Tensor, label_Bhw: Tensor, ignore: int = 255, weight_Bhw: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over pixels whose label is not ``ignore``, weighted as in `masked_mean`; 0 without any."""
    value_Bhw = F.cross_entropy(wide(logits_BKhw), label_Bhw, ignore_index=ignore, reduction="none")
    return masked_mean(value_Bhw, label_Bhw != ignore, weight_Bhw)


def reverse_cross_entropy(
    logits_BKhw: Tensor, label_Bhw: Tensor, ignore: int = 255, weight_Bhw: Tensor | None = None
) -> Tensor:
    """-Σ_k p_k log y_k with log 0 taken as log 1e-4: bounded, hence tolerant of wrong labels (SCE, ICCV 2019)."""
    prob_BKhw = wide(logits_BKhw).softmax(dim=1).clamp(1e-7, 1.0)
    valid_Bhw = label_Bhw != ignore
    of_label_Bhw = prob_BKhw.gather(1, label_Bhw.where(valid_Bhw, 0)[:, None])[:, 0]
    # log 1 of the label is 0, so that what remains is the other classes' probability.
    return masked_mean(-math.log(1e-4) * (prob_BKhw.sum(dim=1) - of_label_Bhw), valid_Bhw, weight_Bhw)


def symmetric_cross_entropy(
    logits_BKhw: Tensor,
    label_Bhw: Tensor,
    alpha: float = 0.1,
    beta: float = 1.0,
    ignore: int = 255,
    weight_Bhw: Tensor | None = None,
) -> Tensor:
    """alpha * cross-entropy + beta * reverse cross-entropy (paper Eq. 8), each weighted pixel by pixel."""
    terms = []
    if alpha:
        terms.append(alpha * cross_entropy(logits_BKhw, label_Bhw, ignore, weight_Bhw))
    if beta:
        terms.append(beta * reverse_cross_entropy(logits_BKhw, label_Bhw, ignore, weight_Bhw))
    return torch.stack(terms).sum()


def self_labelling(feat_ND: Tensor, proto_KD: Tensor, assign_NK: Tensor, temperature: float = 0.08) -> Tensor:
    """Cross-entropy of cluster probabilities and transport assignments (paper Eq. 7).

    The features are constants here: the loss moves the prototypes to where the assigned pixels are.
    Returns 0 if there are no pixels.
    """
    log_prob_NK = (similarity(feat_ND.detach(), proto_KD) / temperature).log_softmax(dim=1)
    return -(assign_NK * log_prob_NK).sum() / max(len(feat_ND), 1)


def contrast(
    feat_ND: Tensor, label_N: Tensor, bank_MD: Tensor, bank_label_M: Tensor, temperature: float = 0.08
) -> Tensor:
    """Contrastive loss of pixels and a memory bank: close to the features of one's class, far from all others.

    For each pixel the mean, over the features of its label, of -log(e / (e + n)) with e = exp(cos / temperature)
    and n the sum of the same over the features of other labels (supervised contrast, Khosla et al. 2020, as the
    official implementation has it). A pixel whose label is not in the bank adds 0. Mean over pixels, which are the
    same in all processes, while each has its part of the bank.
    """
    unit_ND = F.normalize(wide(feat_ND), dim=1)

    def compared(bank_PD: Tensor, bank_label_P: Tensor) -> tuple[Tensor, Tensor]:
        cosine_NP = dot_similarity(unit_ND, F.normalize(wide(bank_PD), dim=1))
        return (cosine_NP - 1) / temperature, label_N[:, None] == bank_label_P  # at most 0, the ratio is the same

    def others(bank_PD: Tensor, bank_label_P: Tensor) -> Tensor:
        logits_NP, same_NP = compared(bank_PD, bank_label_P)
        return torch.where(same_NP, 0, logits_NP.exp()).sum(dim=1)

    def log_prob(bank_PD: Tensor, bank_label_P: Tensor) -> Tensor:
        logits_NP, same_NP = compared(bank_PD, bank_label_P)
        total_NP = (logits_NP.exp() + others_N[:, None]).clamp(min=torch.finfo(logits_NP.dtype).tiny)
        log_prob_N = torch.where(same_NP, logits_NP - total_NP.log(), 0).sum(dim=1)
        return torch.stack([log_prob_N, same_NP.sum(dim=1)])

    def over_bank(value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        # Pixels by features are hundreds of megabytes: never all at once, and computed anew for the backward pass.
        parts = zip(bank_MD.detach().split(BANK_PART), bank_label_M.split(BANK_PART), strict=True)
        values = [checkpoint(value, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return distributed.total(torch.stack(values).sum(dim=0))

    others_N = over_bank(others)
    sum_N, same_N = over_bank(log_prob)
    return -(sum_N / same_N.clamp(min=1)).sum() / max(len(feat_ND), 1)


def kl_divergence(
    teacher_BKhw: Tensor,
    student_logits_BKhw: Tensor,
    valid_Bhw: Tensor | None = None,
    mean: Literal["pixels", "elements"] = "pixels",
) -> Tensor:
    """KL(teacher || softmax(student logits)), averaged.

    Args:
        teacher_BKhw: probabilities, constant; 0 log 0 counts as 0.
        student_logits_BKhw: logits of the student on the same pixels.
        valid_Bhw: pixels that count; default all.
        mean: over pixels; or over "elements", pixels and classes alike, which is K times less and what the
            official implementation does.
    """
    teacher_BKhw = teacher_BKhw.detach()
    log_student_BKhw = wide(student_logits_BKhw).log_softmax(dim=1)
    value_BKhw = torch.special.xlogy(teacher_BKhw, teacher_BKhw) - teacher_BKhw * log_student_BKhw
    value = masked_mean(value_BKhw.sum(dim=1), valid_Bhw)
    return value / teacher_BKhw.shape[1] if mean == "elements" else value


def official_distillation(teacher_BKhw: Tensor, student_logits_BKhw: Tensor) -> Tensor:
    """The official implementation's distillation, which is no divergence: it can be negative.

    Σ t (log t - s) over the student's probabilities s, where the divergence has log s. Mean over pixels and
    classes. Kept to compare with; arguments as in `kl_divergence`.
    """
    teacher_BKhw = teacher_BKhw.detach()
    student_BKhw = wide(student_logits_BKhw).softmax(dim=1)
    return (torch.special.xlogy(teacher_BKhw, teacher_BKhw) - teacher_BKhw * student_BKhw).mean()


def uniform_regulariser(logits_BKhw: Tensor) -> Tensor:
    """-log softmax, averaged over pixels and classes: least for uniform predictions (MRKLD, CRST, ICCV 2019)."""
    return -wide(logits_BKhw).log_softmax(dim=1).mean()
