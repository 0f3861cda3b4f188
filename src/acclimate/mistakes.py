"""Choices that are allowed and likely a mistake: each warning says what to do instead."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from acclimate import recipe as recipes
from acclimate.recipe import Recipe

if TYPE_CHECKING:
    from acclimate.check import SetFindings

FEW = 40
"""Images of a set below which what is learned from it hangs on which they are."""
_FAR = 4.0  # times the learning rate of the built-in recipes


def doubts(recipe: Recipe, sets: Collection[SetFindings]) -> Iterator[str]:
    """What is likely a mistake in a recipe and the sizes of its sets."""
    for found in sets:
        yield from _few_images(found)
        yield from _enlarged(found, recipe)
        yield from _padded(found, recipe)
    yield from _strange_rates(recipe)
    yield from _short_stages(recipe)
    yield from _forgetful_bank(recipe)


def overlaps(images: Mapping[str, Collection[str]]) -> Iterator[str]:
    """What is likely a mistake in sets that share images; by role the paths of each."""
    meant = {
        ("source", "target"): "what is learned to be the difference of the domains then is none; give two folders",
        ("target", "val"): "the scores are of images that the model was adapted to; measure on others, or say so",
        ("ceiling", "val"): "the ceiling is measured on what it has learned by heart; give it other images",
    }
    for (one, other), remedy in meant.items():
        both = set(images.get(one, ())) & set(images.get(other, ()))
        if both:
            total = len(images[other])
            yield f"data.{one} and data.{other}: {len(both)} of {total} images are the same, so that {remedy}"


def absent_labels(stage: str, shares: Mapping[str, float], before: str) -> Iterator[str]:
    """Classes that no pseudo label has, by the share of each among them; ``before``: the stage that labelled."""
    absent = [name for name, share in shares.items() if share == 0]
    if absent:
        section = before.partition("-")[0]
        remedy = "start from another model" if section == "start" else f"raise {section}.iterations"
        yield (
            f"{stage}: no pseudo label is {' or '.join(absent)}, so that nothing is learned of the target there. If "
            f"the photos show {'it' if len(absent) == 1 else 'them'}, {remedy}; if not, leave "
            f"{'it' if len(absent) == 1 else 'them'} out of the classes"
        )


def _few_images(found: SetFindings) -> Iterator[str]:
    if found.role in ("source", "target") and found.images < FEW:
        what = "classes" if found.role == "source" else "the domain"
        yield (
            f"data.{found.role}: {found.images} images are few to learn {what} from, and another choice of them "
            f"gives another result; add some, if you can (the built-in recipes were tried with 160 and more)"
        )


def _enlarged(found: SetFindings, recipe: Recipe) -> Iterator[str]:
    widest, width = found.largest_hw[1], recipe.data.width
    if found.role == "target" and width > 2 * widest:
        yield (
            f"data.target: no image is wider than {widest} pixels, and all are enlarged to data.width: {width}, which "
            f"takes time and shows nothing new; set data.width to about {widest}"
        )


def _padded(found: SetFindings, recipe: Recipe) -> Iterator[str]:
    """Crops may reach over the image's edge, but not mostly."""
    data = recipe.data
    height, width = data.width * found.largest_hw[0] / found.largest_hw[1], data.width
    if found.role != "val" and (data.crop[0] > 2 * height or data.crop[1] > 2 * width):
        yield (
            f"data.{found.role}: crops of {data.crop[0]}x{data.crop[1]} pixels (height x width) are more than twice "
            f"the images' {height:.0f}x{width} at data.width: {width}, so most of a crop is padding; "
            f"lower data.crop or raise data.width"
        )


def _strange_rates(recipe: Recipe) -> Iterator[str]:
    """Rates far from those of the built-in recipes with the same network and optimiser; they go as √batch."""
    built_in = [recipes.load(name) for name in recipes.names()]
    alike = [r for r in built_in if _kind(r) == _kind(recipe)]
    for stage in _stages(recipe):
        section: recipes.Section = getattr(recipe, stage)
        known = [_rate(r, stage) * math.sqrt(section.batch / getattr(r, stage).batch) for r in alike]
        rate = _rate(recipe, stage)
        if known and not min(known) / _FAR < rate < max(known) * _FAR:
            low, high = min(known), max(known)
            usual = f"{low:.1g}" if f"{low:.1g}" == f"{high:.1g}" else f"{low:.1g} to {high:.1g}"
            yield (
                f"{stage}.lr: {rate:g} is {'far above' if rate > high else 'far below'} what the built-in recipes take "
                f"with {recipe.optimizer.name} for batches of {section.batch}: {usual}; set {stage}.lr, or another "
                f"{stage}.batch"
            )


def _kind(recipe: Recipe) -> tuple[str, str]:
    return recipe.network.architecture, recipe.optimizer.name


def _rate(recipe: Recipe, stage: str) -> float:
    return getattr(recipe, stage).lr or recipe.optimizer.lr


def _short_stages(recipe: Recipe) -> Iterator[str]:
    ramp = recipe.optimizer.ramp
    short = [stage for stage in _stages(recipe) if getattr(recipe, stage).iterations < 2 * ramp]
    if short:
        yield (
            f"{', '.join(f'{stage}.iterations' for stage in short)}: the learning rate takes optimizer.ramp: {ramp} "
            "iterations to rise, half of the stage or more; train for longer, or lower the ramp"
        )


def _forgetful_bank(recipe: Recipe) -> Iterator[str]:
    stage = recipe.selflabel
    drawn = stage.batch * stage.pixels
    if stage.iterations and 0 < stage.bank < drawn:
        yield (
            f"selflabel.bank: {stage.bank} holds less than one step's {drawn} pixels (selflabel.batch x "
            f"selflabel.pixels), so that nothing is remembered; raise it to some times that, or set it to 0"
        )


def _stages(recipe: Recipe) -> Iterator[str]:
    """Sections of the stages that are trained."""
    used = {
        "source": not recipe.start,
        "warmup": not recipe.start and recipe.warmup.iterations,
        "selflabel": recipe.selflabel.iterations,
        "distill": recipe.distill.rounds,
        "ceiling": recipe.data.ceiling.path,
    }
    yield from (stage for stage, is_used in used.items() if is_used)
