"""The self-labelling module alone: sampling, bank, Sinkhorn, loss and its gradient; POT's Sinkhorn; the contrast."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from acclimate import recipe
from acclimate.selflabel import contrast, dot_similarity, similarity, sinkhorn
from acclimate.stages.clusters import Clusters
from acclimate.stages.initialise import Initial
from benchmarks.speed.measure import Row, medians, ratio

IMAGES, CLASSES, CHANNELS, MAP_HW = 4, 19, 256, (64, 112)
COMMAND = "python -m benchmarks.speed selflabelling"


def rows() -> Iterator[Row]:
    """Milliseconds of a step, with a full bank, beside those of reading the bank once; what a step leaves behind."""
    torch.manual_seed(0)
    clusters, maps = full_clusters(), random_maps()
    bank_ND = clusters.bank.features()

    def step() -> None:
        clusters.prototypes.zero_grad(set_to_none=True)
        label_Bhw = maps[2]
        clusters.losses(clusters.draw(*maps))["selflabel"].backward()
        clusters.follow(label_Bhw)

    ours, reading = medians((step, bank_ND.sum), repeats=15, warmup=3)
    yield Row("self-labelling module, ms", 40, ours * 1e3, "lower", reading * 1e3, COMMAND)
    yield Row("its memory after 100 more steps, MiB more", 1, growth(step, 100), "lower", 0, COMMAND)
    measured, limit = beside_pot(clusters)
    yield Row("Sinkhorn / POT's", 1, measured, "lower", limit, COMMAND)
    measured, limit = beside_one_matrix(clusters)
    yield Row("contrast (official), class by class / in one matrix", 1, measured, "lower", limit, COMMAND)


def full_clusters() -> Clusters:
    """As in stage 1 of the paper's network, once the bank is full."""
    initial = Initial(torch.rand(CLASSES).softmax(dim=0).double(), torch.randn(CLASSES, CHANNELS))
    clusters = Clusters(initial, recipe.SelfLabel(), CHANNELS)
    remembered = clusters.bank.capacity
    feat_ND = F.normalize(torch.randn(remembered, CHANNELS), dim=1)
    clusters.bank.push(feat_ND, torch.randint(CLASSES, (remembered,)))
    return clusters


def random_maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, logits and labels as a teacher gives them."""
    feat_BDhw, logits_BKhw = (torch.randn(IMAGES, channels, *MAP_HW) for channels in (CHANNELS, CLASSES))
    return feat_BDhw, logits_BKhw, torch.randint(CLASSES, (IMAGES, *MAP_HW))


def growth(step: Callable[[], None], steps: int) -> float:
    """MiB by which so many steps raise the process's peak memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(steps):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def beside_pot(clusters: Clusters) -> tuple[float, float]:
    """Our time over POT's for the scores of the bank and 1,024 pixels, and that of their exponentials alone.

    The assignments are the same to 1e-5.
    """
    import ot

    feat_ND = F.normalize(torch.randn(IMAGES * 256, CHANNELS), dim=1)
    proto_KD = F.normalize(clusters.prototypes.weight_KD.detach(), dim=1)
    scores_NK = dot_similarity(torch.cat([clusters.bank.features(), feat_ND]), proto_KD)
    cost_NK = -scores_NK.contiguous()  # each gets it as it takes it fastest
    share_K = clusters.distribution_K / clusters.distribution_K.sum()
    pixels_N = torch.full((len(scores_NK),), 1 / len(scores_NK))

    def ours() -> torch.Tensor:
        return sinkhorn(scores_NK, share_K)

    def pots() -> torch.Tensor:
        return ot.sinkhorn(pixels_N, share_K, cost_NK, reg=0.05, numItermax=3, stopThr=0)

    with warnings.catch_warnings(action="ignore"):  # three iterations do not converge
        torch.testing.assert_close(ours(), pots() * len(scores_NK), rtol=0, atol=1e-5)
        return ratio(ours, pots, repeats=31, warmup=3), ratio(cost_NK.exp, pots, repeats=31, warmup=3)


def beside_one_matrix(clusters: Clusters) -> tuple[float, float]:
    """Our time for the contrast of 1,024 pixels with the bank, and its gradient, over that of one large matrix.

    And that of the product of pixels and bank alone. The losses are the same to 1e-5.
    """
    feat_ND = torch.randn(IMAGES * 256, CHANNELS, requires_grad=True)
    label_N = torch.randint(CLASSES, (len(feat_ND),))
    bank_MD, bank_label_M = clusters.bank.features(), clusters.bank.labels()

    def ours() -> torch.Tensor:
        loss = contrast(feat_ND, label_N, bank_MD, bank_label_M)
        loss.backward()
        return loss.detach()

    def at_once() -> torch.Tensor:
        logits_NM = similarity(feat_ND, bank_MD) / 0.08
        same_NM = label_N[:, None] == bank_label_M
        others_N1 = torch.where(same_NM, 0, logits_NM.exp()).sum(dim=1, keepdim=True)
        log_prob_NM = torch.where(same_NM, logits_NM - (logits_NM.exp() + others_N1).log(), 0)
        loss = -(log_prob_NM.sum(dim=1) / same_NM.sum(dim=1)).mean()
        loss.backward()
        return loss.detach()

    def product() -> torch.Tensor:
        return feat_ND.detach() @ bank_MD.T

    torch.testing.assert_close(ours(), at_once(), rtol=1e-5, atol=0)
    by_class, whole, least = medians((ours, at_once, product), repeats=3, warmup=0)
    return by_class / whole, least / whole
