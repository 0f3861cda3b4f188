"""The method's functions against inputs and outputs of the official implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.selflabel import (
    PrototypeMeans,
    cluster_probabilities,
    cross_entropy,
    kl_divergence,
    label_shares,
    rectify,
    reverse_cross_entropy,
    self_labelling,
    similarity,
    similarity_map,
    sinkhorn,
    symmetric_cross_entropy,
)

Golden = Callable[[str], dict[str, Any]]


def assert_close(ours: Tensor | float, official: Tensor | float) -> None:
    ours, official = torch.as_tensor(ours).double(), torch.as_tensor(official).double()
    torch.testing.assert_close(ours, official, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_sinkhorn(golden: Golden, number: int) -> None:
    case = golden(f"sinkhorn_{number}")
    ours = sinkhorn(case["scores"], case["class_distribution"], case["epsilon"], case["iterations"])
    assert_close(ours, case["assignments"])


@pytest.mark.parametrize("variant", ["normalised_queue_prototypes", "official_unnormalised_queue_prototypes"])
def test_self_labelling(golden: Golden, variant: str) -> None:
    case = golden(f"self_labelling_{variant}")
    proto_KD = case["prototypes"].requires_grad_()
    features, queue = case["features"], case["queue"]
    with torch.no_grad():
        remembered = similarity(queue, proto_KD) if variant.startswith("norm") else queue @ proto_KD.T
        scores = torch.cat([remembered, similarity(features, proto_KD)])
        assign = sinkhorn(scores, case["class_distribution"], case["epsilon"], case["iterations"])[len(queue) :]
    loss = self_labelling(features, proto_KD, assign, case["temperature"])
    loss.backward()
    assert_close(assign, case["assignments"])
    assert_close(loss.detach(), case["loss"])
    assert proto_KD.grad is not None
    assert_close(proto_KD.grad, case["prototype_gradient"])


def test_rectification(golden: Golden) -> None:
    case = golden("rectification")
    found = rectify(case["soft_pseudo_labels"], case["features_in_crop"], case["prototypes"], case["temperature"])
    assert torch.equal(found.label_Bhw, case["rectified_labels"])
    assert_close(found.confidence_Bhw, case["rectified_confidence"])
    assert_close(found.weight_BKhw, case["weights"])


def test_symmetric_cross_entropy(golden: Golden) -> None:
    case = golden("symmetric_cross_entropy")
    logits, labels, ignore = case["logits"], case["labels"], case["ignore_index"]
    assert_close(cross_entropy(logits, labels, ignore), case["cross_entropy"])
    assert_close(reverse_cross_entropy(logits, labels, ignore), case["reverse_cross_entropy"])
    total = symmetric_cross_entropy(logits, labels, case["alpha"], case["beta"], ignore)
    assert_close(total, case["total"])


def test_consistency(golden: Golden) -> None:
    case = golden("consistency")
    proto_KD, temperature = case["prototypes"], case["temperature"]
    teacher = cluster_probabilities(case["teacher_features"], proto_KD, temperature)
    student = similarity_map(case["student_features"], proto_KD) / temperature
    valid = torch.ones(teacher.shape[0], *teacher.shape[2:], dtype=torch.bool)
    y0, y1, x0, x1 = case["invalid_box_y1y2x1x2"].tolist()
    valid[:, y0:y1, x0:x1] = False
    ours = kl_divergence(teacher, student, valid)
    assert_close(ours, case["mean_over_pixels"])
    assert_close(ours / len(proto_KD), case["official_mean_over_classes_and_pixels"])


def test_distillation_is_a_true_kl(golden: Golden) -> None:
    case = golden("distillation")
    ours = kl_divergence(case["teacher_logits"].softmax(dim=1), case["student_logits"])
    assert_close(ours, case["correct_kl_mean_over_pixels"])
    # The official value comes of probabilities where log-probabilities belong: negative, hence no divergence.
    probabilities = case["student_logits"].softmax(dim=1)
    official = F.kl_div(probabilities, case["teacher_logits"].softmax(dim=1), reduction="none").mean()
    assert_close(official, case["official_value"])


def test_prototype_initialisation(golden: Golden) -> None:
    case = golden("prototype_initialisation")
    means = PrototypeMeans(*case["prototypes"].shape, min_pixels=case["min_pixels"])
    for features, logits in zip(case["features"], case["logits"], strict=True):
        means.add(features, logits)
    assert_close(means.means(), case["prototypes"])
    assert_close(means.images_K, case["images_per_class"])


def test_class_distribution(golden: Golden) -> None:
    case = golden("class_distribution")
    assert_close(label_shares(case["logits"].argmax(dim=1), 19), case["class_distribution"])
