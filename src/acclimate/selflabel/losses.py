"""The losses of CPSL as pure functions. Means are over pixels; every weight in a recipe means that."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.selflabel.prototypes import similarity


def masked_mean(value: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of the values where ``valid``; 0 (with a gradient of 0) if there are none."""
    if valid is None:
        return value.mean()
    return torch.where(valid, value, 0).sum() / valid.sum().clamp(min=1)


def cross_entropy(logits_BKhw: Tensor, label_Bhw: Tensor, ignore: int = 255) -> Tensor:
    """Mean cross-entropy over the pixels whose label is not ``ignore``; 0 if there are none."""
    value_Bhw = F.cross_entropy(logits_BKhw.float(), label_Bhw, ignore_index=ignore, reduction="none")
    return masked_mean(value_Bhw, label_Bhw != ignore)


def reverse_cross_entropy(logits_BKhw: Tensor, label_Bhw: Tensor, ignore: int = 255) -> Tensor:
    """-Σ_k p_k log y_k with log 0 taken as log 1e-4: bounded, hence tolerant of wrong labels (SCE, ICCV 2019)."""
    prob_BKhw = logits_BKhw.float().softmax(dim=1).clamp(1e-7, 1.0)
    valid_Bhw = label_Bhw != ignore
    one_hot_BKhw = F.one_hot(label_Bhw.where(valid_Bhw, 0), logits_BKhw.shape[1]).movedim(-1, 1)
    log_label_BKhw = one_hot_BKhw.to(prob_BKhw.dtype).clamp(1e-4, 1.0).log()
    return masked_mean(-(prob_BKhw * log_label_BKhw).sum(dim=1), valid_Bhw)


def symmetric_cross_entropy(
    logits_BKhw: Tensor, label_Bhw: Tensor, alpha: float = 0.1, beta: float = 1.0, ignore: int = 255
) -> Tensor:
    """alpha * cross-entropy + beta * reverse cross-entropy (paper Eq. 8)."""
    forward = cross_entropy(logits_BKhw, label_Bhw, ignore)
    return alpha * forward + beta * reverse_cross_entropy(logits_BKhw, label_Bhw, ignore)


def self_labelling(feat_ND: Tensor, proto_KD: Tensor, assign_NK: Tensor, temperature: float = 0.08) -> Tensor:
    """Cross-entropy of cluster probabilities and transport assignments (paper Eq. 7).

    The features are constants here: the loss moves the prototypes to where the assigned pixels are.
    Returns 0 if there are no pixels.
    """
    log_prob_NK = (similarity(feat_ND.detach(), proto_KD) / temperature).log_softmax(dim=1)
    return -(assign_NK * log_prob_NK).sum() / max(len(feat_ND), 1)


def kl_divergence(teacher_BKhw: Tensor, student_logits_BKhw: Tensor, valid_Bhw: Tensor | None = None) -> Tensor:
    """Mean over pixels of KL(teacher || softmax(student logits)).

    Args:
        teacher_BKhw: probabilities, constant; 0 log 0 counts as 0.
        student_logits_BKhw: logits of the student on the same pixels.
        valid_Bhw: pixels that count; default all.
    """
    teacher_BKhw = teacher_BKhw.detach()
    log_student_BKhw = student_logits_BKhw.float().log_softmax(dim=1)
    value_BKhw = torch.special.xlogy(teacher_BKhw, teacher_BKhw) - teacher_BKhw * log_student_BKhw
    return masked_mean(value_BKhw.sum(dim=1), valid_Bhw)
