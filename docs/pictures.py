"""The pictures of method.md, made from a finished demo: ``python docs/pictures.py runs/demo``.

The demo's own target pictures and models, the first of them that suit, no training and no chance: the same run gives
the same pictures. Labels of the target are opened for the panels called truth alone. Text is a grey that can be read on
white and on black, and backgrounds are transparent. Needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import patheffects
from matplotlib import pyplot as plt
from safetensors.torch import load_file
from torch import Tensor

from acclimate import recipe as recipes
from acclimate.data.augment import StrongView, sample_weak, strong_view
from acclimate.data.datasets import ImageSet, LabelledSet, open_images, open_labelled, open_space
from acclimate.data.geometry import Geometry, enlarge, scaled_size
from acclimate.data.seeding import generator
from acclimate.data.softlabels import SoftLabels
from acclimate.inference import forward_image
from acclimate.labels import IGNORE, LabelSpace
from acclimate.networks import Segmenter
from acclimate.networks.weights import load_model
from acclimate.pictures import DARK, colourise
from acclimate.selflabel import (
    PrototypeMeans,
    label_shares,
    reach,
    rectify,
    similarity,
    sinkhorn,
    stratified_sample,
)

OUT = Path(__file__).parent / "images"
GREY, WEAK, STRONG, MENDED, SPOILED, OTHER, PAPER = (
    "#7d868f", "#e69f00", "#56a0e0", "#2fa35b", "#d9483b", "#c9a227", "#f4f5f7",
)  # fmt: skip
TEMPERATURE = recipes.SelfLabel.temperature


@dataclass(frozen=True)
class Demo:
    """What a finished demo knows of its target."""

    run: Path
    recipe: recipes.Recipe
    space: LabelSpace
    images: ImageSet
    truth: LabelledSet
    soft: SoftLabels

    @classmethod
    def open(cls, run: Path) -> Demo:
        """The run in a folder, and the data beside it."""
        recipe = recipes.load(run / "recipe.yaml")
        space = open_space(recipe.data)
        images = open_images(recipes.Folder(path=str(run.parent / "streets/target")), "target")
        truth = open_labelled(recipes.Folder(path=str(run.parent / "streets/ceiling")), "ceiling", space)
        names = [sample.name for sample in images.samples]
        return cls(run, recipe, space, images, truth, SoftLabels.open(run / "stages/initialise/soft", names))

    def network(self, stage: str) -> Segmenter:
        """The model that a stage left behind."""
        return load_model(self.run / "stages" / stage / "model.safetensors")[0].eval()

    def seen(self, network: Segmenter, index: int) -> tuple[Tensor, Tensor]:
        """Probabilities and features of a picture, each 1×C×h×w."""
        prob_Khw, feat_Dhw = forward_image(network, self.images.image(index), self.recipe.data.width)
        return prob_Khw[None], feat_Dhw[None]

    def truth_cells(self, index: int, hw: tuple[int, int]) -> Tensor:
        """True labels at the centres of the network's cells, hw."""
        label_HW = torch.from_numpy(self.truth.label(index)).long()
        rows, columns = ((torch.arange(n) * size + size // 2) // n for n, size in zip(hw, label_HW.shape, strict=True))
        return label_HW[rows[:, None], columns]

    def shares(self) -> Tensor:
        """The class distribution that stage 1 began with."""
        shares = json.loads((self.run / "stages/initialise/distribution.json").read_text(encoding="utf-8"))
        return torch.tensor([shares[name] for name in self.space.classes])

    def prototypes(self, network: Segmenter, few: range) -> Tensor:
        """Mean features of the classes as a network predicts them on some pictures: `PrototypeMeans`."""
        means = PrototypeMeans(len(self.space), network.channels)
        for index in few:
            prob_BKhw, feat_BDhw = self.seen(network, index)
            means.add(feat_BDhw, prob_BKhw)
        return means.means(network.directions())


def views(demo: Demo) -> None:
    """The frames of a weak and a strong view on the photo, both views, and labels carried along."""
    index, weak, strong, weak_HWC = next(_turned_views(demo))
    image_HWC = demo.images.image(index)
    label_HW = _pseudo_label(demo, index)
    figure, axes = _grid(2, 3, (9.6, 4.3), widths=(16 / 9, 1.5, 1.5))
    for axis, picture in zip(axes[0], (image_HWC, weak_HWC, strong.image_HWC), strict=True):
        axis.imshow(picture)
    for axis, view in zip(axes[1], (None, weak, strong.geometry), strict=True):
        axis.imshow(colourise(label_HW if view is None else view.label(label_HW), demo.space))
    for view, colour in ((weak, WEAK), (strong.geometry, STRONG)):
        for axis in axes[:, 0]:
            corners = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]) * (view.view_hw[1], view.view_hw[0], 1)
            x, y, _ = view.array @ corners.T
            axis.fill(x - 0.5, y - 0.5, fill=False, edgecolor=colour, linewidth=2.5)
            axis.set(xlim=(-0.5, image_HWC.shape[1] - 0.5), ylim=(image_HWC.shape[0] - 0.5, -0.5))
    for axis, title, colour in zip(axes[0], ("photo", "weak view", "strong view"), (GREY, WEAK, STRONG), strict=True):
        axis.set_title(title, color=colour)
    _save(figure, "views.png")


def _turned_views(demo: Demo) -> Iterator[tuple[int, Geometry, StrongView, np.ndarray]]:
    """Random views of the target's pictures as training draws them, those that are turned or sheared well."""
    data, augment = demo.recipe.data, demo.recipe.augment
    for index in range(len(demo.images)):
        rng = generator(demo.recipe.seed, "docs/pictures", 0, index)
        weak = sample_weak(demo.images.size(index), data, augment.flip, rng)
        (weak_HWC,) = demo.images.views(index, weak)
        strong = strong_view(weak_HWC, weak, augment, rng)
        turn = strong.geometry.relative_to(weak)
        if abs(turn[0, 1]) > 0.1 and strong.geometry.cutout and weak.visible().all():
            yield index, weak, strong, weak_HWC


def transport(demo: Demo) -> None:
    """Assignments of pixels to classes: nearest prototype, equal shares, the class distribution; and their shares."""
    network, classes = demo.network("warmup"), len(demo.space)
    few = range(0, len(demo.images), 10)
    share_K = demo.shares()
    proto_KD = load_file(demo.run / "stages/initialise/prototypes.safetensors")["prototypes"]
    feats, labels, pseudo = [], [], []
    for index in few:
        prob_BKhw, feat_BDhw = demo.seen(network, index)
        feats.append(feat_BDhw[0].flatten(1).T)
        pseudo.append(prob_BKhw[0].argmax(0).flatten())
        labels.append(demo.truth_cells(index, feat_BDhw.shape[2:]).flatten())
    feat_ND, pseudo_N, label_N = (torch.cat(parts) for parts in (feats, pseudo, labels))
    chosen = stratified_sample(pseudo_N, share_K, 256 * len(few), torch.Generator().manual_seed(0))
    chosen = chosen[label_N[chosen] != IGNORE]
    chosen = chosen[label_N[chosen].argsort(stable=True)]
    feat_ND, label_N = feat_ND[chosen], label_N[chosen]
    scores_NK = similarity(feat_ND, proto_KD)
    plans = {
        "nearest prototype": (scores_NK / TEMPERATURE).softmax(1),
        "transport, equal shares": sinkhorn(scores_NK, torch.ones(classes)),
        "transport, class distribution δ": sinkhorn(scores_NK, share_K),
    }
    _draw_plans(demo.space, plans, label_N)
    _draw_shares(demo.space, plans, label_N, share_K)


def _draw_plans(space: LabelSpace, plans: dict[str, Tensor], label_N: Tensor) -> None:
    figure, axes = plt.subplots(3, 1, figsize=(8.4, 7.2), layout="constrained", sharex=True)
    ends = label_N.bincount(minlength=len(space)).cumsum(0)
    for axis, (title, plan_NK) in zip(axes, plans.items(), strict=True):
        right = 100 * (plan_NK.argmax(1) == label_N).float().mean()
        shown_NK = plan_NK[::4]  # about as many columns as the picture has pixels
        whole = (0, len(plan_NK), len(space) - 0.5, -0.5)
        axis.imshow(shown_NK.T, "magma", aspect="auto", vmin=0, vmax=1, interpolation="nearest", extent=whole)
        axis.set_title(f"{title}: {right:.0f} % of the pixels right", loc="left")
        axis.set_yticks(range(len(space)), space.classes, fontsize=8)
        for k, end in enumerate(ends):
            start = end - (label_N == k).sum()
            axis.add_patch(mpl.patches.Rectangle((start, k - 0.5), end - start, 1, fill=False, ec="#4cc38a", lw=1.1))
        axis.tick_params(bottom=False)
    axes[-1].set_xlabel("pixels of 16 pictures, sorted by their true class (green: where they belong)")
    axes[-1].set_xticks([])
    _save(figure, "transport.png")


def _draw_shares(space: LabelSpace, plans: dict[str, Tensor], label_N: Tensor, share_K: Tensor) -> None:
    figure, axis = plt.subplots(figsize=(8.4, 2.9), layout="constrained")
    bars = {"truth": label_shares(label_N, len(space)), "pseudo labels δ": share_K}
    bars |= {title: plan_NK.mean(0) for title, plan_NK in plans.items()}
    colours = (GREY, "#b9c0c7", STRONG, SPOILED, MENDED)
    for place, ((title, values_K), colour) in enumerate(zip(bars.items(), colours, strict=True)):
        at = np.arange(len(space)) + (place - 2) * 0.17
        axis.bar(at, 100 * values_K.numpy(), 0.17, color=colour, label=title)
    axis.set_xticks(range(len(space)), space.classes, rotation=35, ha="right")
    axis.set_ylabel("share of the pixels, %")
    axis.legend(frameon=False, labelcolor=GREY, fontsize=8)
    _save(figure, "shares.png")


def rectification(demo: Demo, shown: tuple[int, ...] = (40, 100)) -> None:
    """Pseudo labels of the initialisation, the same corrected by stage 1, and which cells that changed."""
    network = demo.network("selflabel")
    proto_KD, reach_K = demo.prototypes(network, range(0, len(demo.images), 4)), reach(demo.shares())

    def maps(index: int) -> list[Tensor]:
        """Pseudo labels before and after, and the truth, in the network's cells."""
        _, feat_BDhw = demo.seen(network, index)
        soft_BKhw = torch.from_numpy(demo.soft.read(index)).float()[None]
        before_hw, rectified = soft_BKhw[0].argmax(0), rectify(soft_BKhw, feat_BDhw, proto_KD, reach_K=reach_K)
        after_hw = rectified.label_Bhw[0]
        return [before_hw, after_hw, demo.truth_cells(index, before_hw.shape)]

    def right(label_hw: Tensor, truth_hw: Tensor) -> float:
        return 100 * float((label_hw == truth_hw)[truth_hw != IGNORE].float().mean())

    figure, axes = _grid(len(shown), 5, (10, 1.3 * len(shown) + 0.4))
    for row, index in zip(axes, shown, strict=True):
        before_hw, after_hw, truth_hw = maps(index)
        scores = right(before_hw, truth_hw), right(after_hw, truth_hw)
        before_hwC, after_hwC, truth_hwC = (colourise(m.numpy().astype(np.uint8), demo.space) for m in maps(index))
        panels = {
            "photo": demo.images.image(index),
            f"before: {scores[0]:.0f} % right": before_hwC,
            f"rectified: {scores[1]:.0f} % right": after_hwC,
            "what changed": _changes(before_hw, after_hw, truth_hw),
            "truth": truth_hwC,
        }
        for axis, (title, picture) in zip(row, panels.items(), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title)
    _save(figure, "rectification.png")
    every = [maps(index) for index in range(0, len(demo.images), 4)]
    before, after = (np.mean([right(found[i], found[2]) for found in every]) for i in (0, 1))
    print(f"  of {len(every)} pictures {before:.1f} % before and {after:.1f} % after are right")


def _changes(before_hw: Tensor, after_hw: Tensor, truth_hw: Tensor) -> np.ndarray:
    """Cells that became right, wrong, or another wrong class; uint8 hwC."""
    changed_hw = (before_hw != after_hw) & (truth_hw != IGNORE)
    colours_hwC = np.full((*before_hw.shape, 3), DARK, np.uint8)
    kinds = ((truth_hw == truth_hw, OTHER), (after_hw == truth_hw, MENDED), (before_hw == truth_hw, SPOILED))
    for kind_hw, colour in kinds:
        colours_hwC[(changed_hw & kind_hw).numpy()] = np.round(255 * np.array(mpl.colors.to_rgb(colour)))
    return colours_hwC


def prototypes(demo: Demo) -> None:
    """Pixel features of the target and the class prototypes in the plane in which the prototypes spread most."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.8), layout="constrained")
    colours = np.array(demo.space.colours) / 255
    for axis, stage, title in zip(axes, ("source", "selflabel"), ("source only", "after stage 1"), strict=True):
        network = demo.network(stage)
        unit_KD = F.normalize(demo.prototypes(network, range(0, len(demo.images), 4)), dim=1)
        feat_ND, label_N = _some_pixels(demo, network)
        plane_D2 = torch.linalg.svd(unit_KD - unit_KD.mean(0), full_matrices=False).Vh[:2].T
        at_N2, at_K2 = feat_ND @ plane_D2, unit_KD @ plane_D2
        axis.set_facecolor(PAPER)
        axis.scatter(*at_N2.T, s=7, c=colours[label_N], alpha=0.6, linewidths=0)
        axis.scatter(*at_K2.T, s=130, c=colours, edgecolors="white", linewidths=1.6, zorder=3)
        for name, place, away in zip(demo.space.classes, at_K2, _apart(at_K2), strict=True):
            text = axis.annotate(name, place.tolist(), (19 * away).tolist(), textcoords="offset points", ha="center",
                                 va="center", color="#202124", zorder=4, fontsize=9, weight="bold")  # fmt: skip
            text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground=PAPER)])
        axis.set_title(title)
        axis.set(xticks=[], yticks=[])
        axis.margins(0.09)
        axis.set_aspect("equal", adjustable="datalim")
    _save(figure, "prototypes.png")


def _apart(at_K2: Tensor) -> Tensor:
    """Unit directions away from the other places, the nearest most, and outwards: for their names."""
    step_KK2 = at_K2[:, None] - at_K2
    repelled_K2 = F.normalize((step_KK2 / (step_KK2.norm(dim=2, keepdim=True) ** 3 + 1e-9)).sum(1))
    return F.normalize(repelled_K2 + F.normalize(at_K2 - at_K2.mean(0)))


def _some_pixels(demo: Demo, network: Segmenter, each: int = 150) -> tuple[Tensor, Tensor]:
    """Unit features and true classes of up to ``each`` pixels of every class, in mixed order."""
    feats, labels = [], []
    for index in range(0, len(demo.images), 10):
        _, feat_BDhw = demo.seen(network, index)
        feats.append(F.normalize(feat_BDhw[0].flatten(1).T, dim=1))
        labels.append(demo.truth_cells(index, feat_BDhw.shape[2:]).flatten())
    feat_ND, label_N = torch.cat(feats), torch.cat(labels)
    order = torch.randperm(len(label_N), generator=torch.Generator().manual_seed(0))
    chosen = torch.cat([order[label_N[order] == k][:each] for k in range(len(demo.space))])
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1))]
    return feat_ND[chosen], label_N[chosen]


def _pseudo_label(demo: Demo, index: int) -> np.ndarray:
    """The initialisation's most likely classes at the picture's pixels, uint8 HW."""
    size = scaled_size(demo.images.size(index), demo.recipe.data.width)
    soft_BKhw = torch.from_numpy(demo.soft.read(index)).float()[None]
    return enlarge(soft_BKhw, demo.soft.grid, size)[0].argmax(0).numpy().astype(np.uint8)


def _grid(rows: int, columns: int, size: tuple[float, float], **widths: Any) -> tuple[Any, np.ndarray]:
    """Axes for pictures: no ticks, no frames."""
    ratios = {"width_ratios": widths["widths"]} if widths else None
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, gridspec_kw=ratios)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _save(figure: Any, name: str) -> None:
    figure.savefig(OUT / name, dpi=110, facecolor="none", metadata={"Software": None})
    plt.close(figure)
    print(f"{OUT / name}: {(OUT / name).stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    mpl.use("agg")
    mpl.rcParams.update({"text.color": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
                         "axes.edgecolor": GREY, "axes.titlecolor": GREY, "axes.facecolor": "none"})  # fmt: skip
    torch.use_deterministic_algorithms(True)
    finished = Demo.open(Path(sys.argv[1]))
    for draw in (views, transport, rectification, prototypes):
        draw(finished)
