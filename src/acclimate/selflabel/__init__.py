"""Class-balanced pixel-level self-labelling (CPSL, Li et al., CVPR 2022) as a library of its own.

Nothing in here knows of images, networks or recipes: features, pseudo labels and prototypes go in,
assignments, corrected labels and losses come out.

    Before the loop
        `label_shares`      the class distribution of pseudo labels
        `PrototypeMeans`    the mean feature of each predicted class, from which
        `Prototypes`        start: learned directions W, and their average W' that rectifies
        `MemoryBank`        the latest features, first in, first out
    In each step
        `rectify`           soft pseudo labels corrected by the clusters of the teacher's features, as far as
        `reach`             lets them, by the distribution
        `follow`            the distribution's moving average
        `stratified_sample` pixels in the classes' shares
        `similarity`        cosines of pixels, or of the bank, and prototypes
        `sinkhorn`          assignments under the distribution
        `self_labelling`    what the prototypes learn from
        `symmetric_cross_entropy`, `cross_entropy`, `kl_divergence`, …   what the network learns from

docs/plugin.md puts them into a plain training loop; examples/plugin.py is that loop.
"""

from acclimate.selflabel.bank import MemoryBank
from acclimate.selflabel.contrast import contrast
from acclimate.selflabel.distribution import class_weights, follow, label_shares
from acclimate.selflabel.losses import (
    cross_entropy,
    kl_divergence,
    official_distillation,
    reverse_cross_entropy,
    self_labelling,
    symmetric_cross_entropy,
    uniform_regulariser,
)
from acclimate.selflabel.prototypes import (
    PrototypeMeans,
    Prototypes,
    cluster_probabilities,
    dot_similarity,
    similarity,
    similarity_map,
)
from acclimate.selflabel.rectify import Rectified, corrected, reach, rectify
from acclimate.selflabel.sampling import stratified_sample, uniform_sample
from acclimate.selflabel.transport import sinkhorn

__all__ = [
    "MemoryBank",
    "PrototypeMeans",
    "Prototypes",
    "Rectified",
    "class_weights",
    "cluster_probabilities",
    "contrast",
    "corrected",
    "cross_entropy",
    "dot_similarity",
    "follow",
    "kl_divergence",
    "label_shares",
    "official_distillation",
    "reach",
    "rectify",
    "reverse_cross_entropy",
    "self_labelling",
    "similarity",
    "similarity_map",
    "sinkhorn",
    "stratified_sample",
    "symmetric_cross_entropy",
    "uniform_regulariser",
    "uniform_sample",
]
