"""How well scores that need no labels rank the candidates of a finished run.

    acclimate demo selection.keep=true --out runs/demo
    python benchmarks/selection.py runs/demo [more runs]

The runs need labelled target images (data.val) and their candidates, hence `selection.keep=true`. Prints a Markdown
table: for each score Spearman's rank correlation with the true mIoU, and the regret, by how many points the best
candidate is better than the one of the highest score; over all candidates of a run, and within its stages. Means over
the runs. The first row is the score that chooses (`selection.by: agreement`), its regrets those of what runs choose.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate import recipe as recipes
from acclimate.data.datasets import ImageSet, evenly_spaced, open_images
from acclimate.data.seeding import generator
from acclimate.evaluation import Confusion
from acclimate.inference import cells, prepare
from acclimate.networks import Segmenter
from acclimate.networks.weights import load_model
from acclimate.run import Run
from acclimate.selection import agreement, judge, steadiest, steadiness
from acclimate.selection import look as look_at_views
from acclimate.selection.consensus import squares
from acclimate.selflabel import similarity, sinkhorn

SHIPPED = "agreement under views"
"""The score that chooses."""


class Candidate(NamedTuple):
    """A network that the run might have left behind."""

    stage: str
    step: int
    path: Path
    miou: float
    """On labelled target images, in percent."""


class Score(NamedTuple):
    """What a score says of some candidates."""

    values: np.ndarray
    """The higher, the better they are said to be."""
    chosen: int


class Seen(NamedTuple):
    """What one network says of the images: class probabilities N x K x h x w, features and labels of pixels."""

    plain: Tensor
    feat_PD: Tensor
    label_P: Tensor


class Said(NamedTuple):
    """What one network says, and what scores say of it that need no other network."""

    network: Segmenter
    views: np.ndarray
    """How labels agree under disturbed views, as `selection.look` counts it."""
    plain: Tensor
    alone: dict[str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    measured = [rank(Run(path, recipes.load(path / "recipe.yaml"))) for path in args.runs]
    head = ("score", "Spearman", "regret", "within stages", "regret there")
    print(f"| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
    for name in measured[0]:
        means = np.nanmean([list(row[name].values()) for row in measured], axis=0)
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in means)} |")


def rank(run: Run) -> dict[str, dict[str, float]]:
    """Of each score: correlation and regret over all candidates, mean of both over the stages."""
    candidates = candidates_of(run)
    miou = np.array([candidate.miou for candidate in candidates])
    stages = np.array([candidate.stage for candidate in candidates])
    each = [np.flatnonzero(stages == stage) for stage in dict.fromkeys(stages)]
    groups = [group for group in each if len(group) > 2]
    images = open_images(run.recipe.data.target, "target")
    said = [ask(candidate, images, run.recipe) for candidate in candidates]

    def best_of(places: Sequence[int]) -> int:
        return places[steadiest(steadiness([said[place].views for place in places]))]

    def scored(places: Sequence[int], chosen: int) -> dict[str, Score]:
        here = [said[place] for place in places]
        agreements = np.array([agreement(one.views) for one in here])
        return {SHIPPED: Score(agreements, chosen)} | others(here, images, run.recipe)

    whole = scored(range(len(candidates)), best_of([best_of(group) for group in each]))
    # within a stage the consensus is that of its own candidates
    parts = [scored(group, int(np.flatnonzero(group == best_of(group))[0])) for group in groups]
    print(f"{run.folder}: {len(candidates)} candidates, {miou.min():.1f} … {miou.max():.1f} mIoU\n")
    return {
        name: {
            "spearman": spearman(score.values, miou),
            "regret": regret(score, miou),
            "spearman within stages": _mean(
                spearman(p[name].values, miou[g]) for p, g in zip(parts, groups, strict=True)
            ),
            "regret within stages": _mean(regret(p[name], miou[g]) for p, g in zip(parts, groups, strict=True)),
        }
        for name, score in whole.items()
    }


def candidates_of(run: Run) -> list[Candidate]:
    """All that the run could have left behind, in the order of training."""
    found = []
    for row in run.results:
        name = row["name"]
        if name == "ceiling":
            continue
        kept = run.candidates(name) or {row["iterations"]: run.model(name)}
        reached = {int(step): value for step, value in row.get("candidates", {}).items()} or {
            row["iterations"]: row["mean_iou"]
        }
        found += [Candidate(name, step, path, 100 * reached[step]) for step, path in kept.items()]
    return found


def ask(candidate: Candidate, images: ImageSet, recipe: recipes.Recipe) -> Said:
    """Show a candidate the images and ask every score that needs no other candidate."""
    network = load_model(candidate.path)[0]
    views = look_at_views(network, images, recipe.selection.images, recipe.data.width)
    seen = look(network, images, recipe)
    return Said(network, views, seen.plain, {name: score(seen) for name, score in SCORES.items()})


def others(said: Sequence[Said], images: ImageSet, recipe: recipes.Recipe) -> dict[str, Score]:
    """What all scores but the one that chooses say of some candidates; of equals they choose the last."""
    estimates = judge([one.network for one in said], images, recipe.selection.images, recipe.data.width)
    by_name = {"consensus and own": np.array([estimate.mean_iou for estimate in estimates])}
    consensus = torch.stack([one.plain for one in said]).mean(dim=0).argmax(dim=1)
    by_name["agreement with the consensus"] = np.array([agree(one.plain.argmax(dim=1), consensus) for one in said])
    by_name |= {name: np.array([one.alone[name] for one in said]) for name in SCORES}
    by_name["last checkpoint"] = np.arange(len(said), dtype=float)
    return {name: Score(values, of_equals_the_last(values)) for name, values in by_name.items()}


@torch.no_grad()
def look(network: Segmenter, images: ImageSet, recipe: recipes.Recipe) -> Seen:
    """Show a network the images."""
    maps, feats, labels = [], [], []
    for index in evenly_spaced(recipe.selection.images, len(images)):
        shown = prepare(network.grid, images.image(index), recipe.data.width)
        prob_Khw, feat_Dhw = cells(network, shown)
        maps.append(squares(network, shown, shown.scaled[0].shape[:2]))
        feats.append(feat_Dhw.flatten(1).T)
        labels.append(prob_Khw.argmax(dim=0).flatten())
    return Seen(torch.stack(maps), torch.cat(feats), torch.cat(labels))


def agree(label: Tensor, other: Tensor) -> float:
    """Mean IoU of two labellings: classes count alike."""
    confusion = Confusion(int(max(label.max(), other.max())) + 1)
    confusion.update(label, other)
    return confusion.mean_iou()


def entropy(seen: Seen) -> float:
    """Minus the mean entropy of a pixel's probabilities."""
    return float((seen.plain * seen.plain.clamp(min=1e-8).log()).sum(dim=1).mean())


def information(seen: Seen) -> float:
    """Entropy of the classes' shares minus mean entropy: sure of each pixel, and of many classes."""
    share_K = seen.plain.mean(dim=(0, 2, 3))
    return float(-(share_K * share_K.clamp(min=1e-8).log()).sum()) + entropy(seen)


def neighbourhood(seen: Seen, pixels: int = 3000, temperature: float = 0.05) -> float:
    """Soft neighbourhood density (Saito et al., ICCV 2021) of the probabilities of sampled pixels."""
    prob_PK = seen.plain.movedim(1, -1).flatten(0, -2)
    chosen = generator(0, "neighbourhood").permutation(len(prob_PK))[:pixels]
    unit_PK = F.normalize(prob_PK[torch.from_numpy(chosen)], dim=1)
    near_PP = (unit_PK @ unit_PK.T / temperature).fill_diagonal_(-torch.inf).softmax(dim=1)
    return float(-(near_PP * near_PP.clamp(min=1e-12).log()).sum(dim=1).mean())


def class_means(seen: Seen) -> tuple[Tensor, Tensor]:
    """Similarity of the pixels with the classes that occur, by their mean features, and the labels among these."""
    member_PK = F.one_hot(seen.label_P).float()
    there_K = member_PK.sum(dim=0) > 0
    member_PK = member_PK[:, there_K]
    return similarity(seen.feat_PD, member_PK.T @ seen.feat_PD), member_PK.argmax(dim=1)


def clusters(seen: Seen) -> float:
    """Agreement of the classifier with the nearest mean feature of a class."""
    cos_PK, label_P = class_means(seen)
    return agree(label_P, cos_PK.argmax(dim=1))


def transport(seen: Seen, pixels: int = 8192) -> float:
    """Mean similarity under the optimal transport of pixels to class means in the predicted proportions."""
    cos_PK, label_P = class_means(seen)
    chosen = torch.from_numpy(generator(0, "transport").permutation(len(cos_PK))[:pixels])
    share_K = torch.bincount(label_P, minlength=cos_PK.shape[1]).float()
    plan_NK = sinkhorn(cos_PK[chosen], share_K, iterations=20)
    return float((plan_NK * cos_PK[chosen]).sum(dim=1).mean())


SCORES: dict[str, Callable[[Seen], float]] = {
    "agreement of clusters": clusters,
    "transport": transport,
    "information": information,
    "soft neighbourhood density": neighbourhood,
    "naive entropy": entropy,
}


def spearman(values: np.ndarray, miou: np.ndarray) -> float:
    """Rank correlation; equal values share their ranks."""
    return float(np.corrcoef(_ranks(values), _ranks(miou))[0, 1])


def regret(score: Score, miou: np.ndarray) -> float:
    """Points that the best candidate is better than the chosen one."""
    return float(miou.max() - miou[score.chosen])


def of_equals_the_last(values: np.ndarray) -> int:
    """The highest value's place."""
    return int(np.flatnonzero(values == values.max())[-1])


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < value).sum() + (values == value).sum() / 2 for value in values])


if __name__ == "__main__":
    main()
