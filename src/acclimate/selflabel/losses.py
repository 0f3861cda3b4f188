"""The losses of CPSL as pure functions. Means are over pixels; every weight in a recipe means that."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate import distributed
from acclimate.selflabel.precision import wide
from acclimate.selflabel.prototypes import similarity


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
