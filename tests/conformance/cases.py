"""What each golden file of the official implementation says, beside what our public functions say.

`CASES` maps the beginning of a file's name to a function from its arrays to comparisons. Shapes, numbers
of classes and channels, ignored ids and all parameters come from the file.
"""

from __future__ import annotations

import ast
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.data.colour import lab_statistics, transfer
from acclimate.data.replay import Replay, replay, whole_to_weak
from acclimate.evaluation import Confusion
from acclimate.networks.deeplab import DeepLab
from acclimate.selflabel import (
    PrototypeMeans,
    cluster_probabilities,
    cross_entropy,
    dot_similarity,
    kl_divergence,
    label_shares,
    official_distillation,
    rectify,
    reverse_cross_entropy,
    self_labelling,
    similarity,
    similarity_map,
    sinkhorn,
    symmetric_cross_entropy,
    uniform_regulariser,
)
from acclimate.training import rate_factor

Arrays = dict[str, Any]
"""Of a golden file: arrays as tensors, single values as Python's, text as lists."""


@dataclass(frozen=True)
class Comparison:
    """One value of the official implementation, and ours."""

    name: str
    ours: Any
    official: Any
    limit: float = 1e-5
    """Largest difference allowed, in the unit of `kind`."""
    kind: str = "relative"
    """``relative``: to the largest official value; ``share``: of the entries that differ; ``levels``: of grey."""

    def difference(self) -> float:
        """The largest difference found; infinite where shapes, or places without a value, are not the same."""
        ours, official = (np.asarray(value) for value in (self.ours, self.official))
        if ours.shape != official.shape:
            return math.inf
        if self.kind == "share":
            return float((ours != official).mean())
        ours, official = ours.astype(np.float64), official.astype(np.float64)
        missing = np.isnan(official)
        if not np.array_equal(np.isnan(ours), missing):
            return math.inf
        largest = np.abs(ours - official)[~missing].max(initial=0)
        scale = np.abs(official[~missing]).max(initial=0) if self.kind == "relative" else 1
        return float(largest / scale) if largest else 0.0


def load(file: Path) -> Arrays:
    """The arrays of a golden file."""
    with np.load(file, allow_pickle=False) as arrays:
        return {key: _plain(value) for key, value in arrays.items()}


def case_of(file: Path) -> Callable[[Arrays], list[Comparison]] | None:
    """What to do with a file: the longest beginning of its name that is known."""
    known = [prefix for prefix in CASES if file.stem.startswith(prefix)]
    return CASES[max(known, key=len)] if known else None


def sinkhorn_case(case: Arrays) -> list[Comparison]:
    ours = sinkhorn(case["scores"], case["class_distribution"], case["epsilon"], case["iterations"])
    return [Comparison("`sinkhorn`: assignments", ours, case["assignments"])]


def self_labelling_case(case: Arrays, bank_scores: Callable[[Tensor, Tensor], Tensor]) -> list[Comparison]:
    feat_ND, queue_MD, proto_KD = case["features"], case["queue"], case["prototypes"].requires_grad_()
    with torch.no_grad():
        scores = torch.cat([bank_scores(queue_MD, proto_KD), similarity(feat_ND, proto_KD)])
        assign = sinkhorn(scores, case["class_distribution"], case["epsilon"], case["iterations"])[len(queue_MD) :]
    loss = self_labelling(feat_ND, proto_KD, assign, case["temperature"])
    loss.backward()
    name = f"`self_labelling`, bank scored by `{bank_scores.__name__}`"
    return [
        Comparison(f"{name}: assignments", assign, case["assignments"]),
        Comparison(f"{name}: loss", loss.detach(), case["loss"]),
        Comparison(f"{name}: gradient", proto_KD.grad, case["prototype_gradient"]),
    ]


def rectification_case(case: Arrays) -> list[Comparison]:
    feat_BDhw = whole_to_weak(
        case["teacher_features_full"], case["resized_hw"], case["crop_y1y2x1x2"], case["hflip"], case["stride"]
    )
    found = rectify(case["soft_pseudo_labels"], feat_BDhw, case["prototypes"], case["temperature"])
    return [
        Comparison("`whole_to_weak`: features", feat_BDhw, case["features_in_crop"]),
        Comparison("`rectify`: weights", found.weight_BKhw, case["weights"]),
        Comparison("`rectify`: confidence", found.confidence_Bhw, case["rectified_confidence"]),
        Comparison("`rectify`: labels", found.label_Bhw, case["rectified_labels"], 0, "share"),
    ]


REPLAYED = {
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "Rotate": "rotate",
}
"""The official names of what `Replay` remembers."""


def strong_geometry_case(case: Arrays) -> list[Comparison]:
    operation, value = str(case["op"]), case["value"]
    if operation == "Hflip":
        view = Replay(mirrored=bool(value))
    elif operation == "CutoutAbs":
        view = Replay(**dict(zip(("x0", "y0", "x1", "y1"), value.tolist(), strict=True)))
    else:
        view = Replay(**{REPLAYED[operation]: value})
    ours = replay(case["label"], view.pack()[None], case["scale"], case["ignore_index"])
    ties = 0 if operation in ("Hflip", "CutoutAbs") else 0.005  # of nearest-neighbour sampling
    return [Comparison(f"`replay`: {operation}", ours, case["warped"], ties, "share")]


def symmetric_cross_entropy_case(case: Arrays) -> list[Comparison]:
    logits, labels, ignore = case["logits"], case["labels"], case["ignore_index"]
    total = symmetric_cross_entropy(logits, labels, case["alpha"], case["beta"], ignore)
    reverse = reverse_cross_entropy(logits, labels, ignore)
    return [
        Comparison("`cross_entropy`", cross_entropy(logits, labels, ignore), case["cross_entropy"]),
        Comparison("`reverse_cross_entropy`", reverse, case["reverse_cross_entropy"]),
        Comparison("`symmetric_cross_entropy`", total, case["total"]),
    ]


def consistency_case(case: Arrays) -> list[Comparison]:
    teacher = cluster_probabilities(case["teacher_features"], case["prototypes"], case["temperature"])
    student = similarity_map(case["student_features"], case["prototypes"]) / case["temperature"]
    valid = torch.ones(teacher.shape[0], *teacher.shape[2:], dtype=torch.bool)
    y0, y1, x0, x1 = case["invalid_box_y1y2x1x2"].tolist()
    valid[:, y0:y1, x0:x1] = False
    elements = kl_divergence(teacher, student, valid, mean="elements")
    return [
        Comparison(
            "`kl_divergence`: consistency, official mean", elements, case["official_mean_over_classes_and_pixels"]
        ),
        Comparison(
            "`kl_divergence`: consistency, over pixels",
            kl_divergence(teacher, student, valid),
            case["mean_over_pixels"],
        ),
    ]


def distillation_case(case: Arrays) -> list[Comparison]:
    teacher, logits = case["teacher_logits"].softmax(dim=1), case["student_logits"]
    return [
        Comparison("`official_distillation`", official_distillation(teacher, logits), case["official_value"]),
        Comparison(
            "`kl_divergence`: distillation", kl_divergence(teacher, logits), case["correct_kl_mean_over_pixels"]
        ),
    ]


def prototype_initialisation_case(case: Arrays) -> list[Comparison]:
    means = PrototypeMeans(*case["prototypes"].shape, min_pixels=case["min_pixels"])
    for feat_BDhw, logits_BKhw in zip(case["features"], case["logits"], strict=True):
        means.add(feat_BDhw, logits_BKhw)
    return [
        Comparison("`PrototypeMeans`: prototypes", means.means(), case["prototypes"]),
        Comparison("`PrototypeMeans`: images per class", means.images_K, case["images_per_class"], 0),
    ]


def class_distribution_case(case: Arrays) -> list[Comparison]:
    ours = label_shares(case["logits"].argmax(dim=1), len(case["class_distribution"]))
    return [Comparison("`label_shares`: class distribution", ours, case["class_distribution"])]


def metrics_case(case: Arrays) -> list[Comparison]:
    confusion = Confusion(len(case["class_iou"]), ignore=case["ignore_index"])
    confusion.update(case["labels"], case["predictions"])
    return [
        Comparison("`Confusion`: IoU per class", confusion.iou(), case["class_iou"]),
        Comparison("`Confusion`: mean IoU", confusion.mean_iou(), case["mean_iou"]),
        Comparison("`Confusion`: accuracy", confusion.accuracy(), case["overall_acc"]),
        Comparison("`Confusion`: mean accuracy", confusion.mean_accuracy(), case["mean_acc"]),
        Comparison(
            "`Confusion`: frequency-weighted IoU", confusion.frequency_weighted_iou(), case["freq_weighted_iou"]
        ),
    ]


def poly_lr_case(case: Arrays) -> list[Comparison]:
    (official,) = (value for key, value in case.items() if key.startswith("lr_first"))
    ours = [case["base_lr"] * rate_factor(t, case["max_iter"], case["power"], ramp=0) for t in range(len(official))]
    return [Comparison("`rate_factor`: learning rates", ours, official)]


def lab_statistics_transfer_case(case: Arrays) -> list[Comparison]:
    source, target = case["source"].numpy(), case["target"].numpy()
    ours = transfer(source, lab_statistics(source), lab_statistics(target))
    # The official code cuts decimals off where ours rounds.
    return [Comparison("`transfer`: LAB statistics", ours, case["transferred"], 1, "levels")]


@torch.no_grad()
def network_case(case: Arrays) -> list[Comparison]:
    shapes = dict(zip(case["keys"], map(ast.literal_eval, case["shapes"]), strict=True))
    classes = shapes["layer5.head.1.weight"][0]
    network = DeepLab(classes, extra_norm=any(key.startswith("bn_pretrain") for key in shapes)).eval()
    state = network.state_dict()
    names = Comparison("`DeepLab`: names of the tensors", list(state), case["keys"], 0, "share")
    sizes = Comparison(
        "`DeepLab`: their shapes", [str(tuple(v.shape)) for v in state.values()], case["shapes"], 0, "share"
    )
    network.load_state_dict({key: weight(case["salt"], key, shape) for key, shape in shapes.items()})
    logits, feat = network(case["image"])
    return [
        names,
        sizes,
        Comparison("`DeepLab`: logits", logits, case["out"], 1e-4),
        Comparison("`DeepLab`: features", feat[:, :, ::3, ::3], case["feat"], 1e-4),
    ]


def weight(salt: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """The rule by which the golden network's weights are made."""
    x = np.random.default_rng(zlib.crc32((salt + key).encode())).standard_normal(shape)
    if key.endswith("running_var"):
        x = 0.5 + np.abs(x)
    elif key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    elif key.endswith("running_mean"):
        x = 0.1 * x
    elif key.endswith("weight") and len(shape) == 1:
        x = 1 + 0.1 * x
    elif key.endswith("bias"):
        x = 0.05 * x
    else:
        x = 0.7 * x * math.sqrt(2 / math.prod(shape[1:]))
    return torch.as_tensor(x, dtype=torch.float32)


def regularizer_mrkld_case(case: Arrays) -> list[Comparison]:
    return [Comparison("`uniform_regulariser`", uniform_regulariser(case["logits"]), case["value"])]


CASES: dict[str, Callable[[Arrays], list[Comparison]]] = {
    "class_distribution": class_distribution_case,
    "consistency": consistency_case,
    "distillation": distillation_case,
    "lab_statistics_transfer": lab_statistics_transfer_case,
    "metrics": metrics_case,
    "network": network_case,
    "poly_lr": poly_lr_case,
    "prototype_initialisation": prototype_initialisation_case,
    "rectification": rectification_case,
    "regularizer_mrkld": regularizer_mrkld_case,
    "self_labelling_normalised": lambda case: self_labelling_case(case, similarity),
    "self_labelling_official_unnormalised": lambda case: self_labelling_case(case, dot_similarity),
    "sinkhorn": sinkhorn_case,
    "strong_geometry": strong_geometry_case,
    "symmetric_cross_entropy": symmetric_cross_entropy_case,
}


def _plain(value: np.ndarray) -> Any:
    if value.ndim == 0:
        return value.item()
    return value.tolist() if value.dtype.kind == "U" else torch.from_numpy(value)
