"""Choices that are allowed and likely a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from acclimate import mistakes
from acclimate import recipe as recipes
from acclimate.check import SetFindings


def said(name: str = "laptop", target: dict[str, Any] | None = None, **choices: Any) -> list[str]:
    flat = [recipes.as_override(key.replace("__", "."), value) for key, value in choices.items()]
    facts: dict[str, Any] = {"images": 367, "decoded": 367, "smallest_hw": (360, 480), "largest_hw": (360, 480)}
    sets = [SetFindings("source", **facts), SetFindings("target", **(facts | (target or {})))]
    return list(mistakes.doubts(recipes.load(name, flat), sets))


@pytest.mark.parametrize("name", recipes.names())
def test_built_in_recipes_on_images_like_theirs_raise_no_doubts(name: str) -> None:
    wide = {"smallest_hw": (1024, 2048), "largest_hw": (1024, 2048)} if "cityscapes" in name else {}
    small = {"images": 160, "smallest_hw": (128, 256), "largest_hw": (128, 256)} if name == "demo" else {}
    assert said(name, wide | small) == []


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"target": {"images": 12}}, ["data.target: 12 images are few", "add some"]),
        ({"data__width": 1200}, ["enlarged to data.width: 1200", "set data.width to about 480"]),
        ({"data__crop": [900, 256]}, ["most of a crop is padding", "lower data.crop"]),
        (
            {"selflabel__batch": 128},
            ["selflabel.lr: 0.0003 is far below", "batches of 128: 0.001;", "set selflabel.lr"],
        ),
        ({"optimizer__lr": 0.01, "source__lr": 0.001}, ["warmup.lr: 0.01 is far above", "with adamw", "set warmup.lr"]),
        ({"warmup__iterations": 30}, ["warmup.iterations: the learning rate takes optimizer.ramp: 20"]),
        ({"selflabel__bank": 500}, ["selflabel.bank: 500 holds less than one step's 2048 pixels", "set it to 0"]),
    ],
)
def test_each_doubt_names_the_key_and_the_remedy(choices: dict[str, Any], words: list[str]) -> None:
    (first, *_) = said(**choices)
    assert all(word in first for word in words), first


def test_stages_that_are_not_trained_raise_no_doubts() -> None:
    left_out = {
        "warmup__lr": 1.0,
        "warmup__iterations": 0,
        "distill__lr": 1.0,
        "distill__rounds": 0,
        "ceiling__lr": 1.0,
    }
    assert said(**left_out) == []
    assert said(start="warm.safetensors", source__lr=1.0) == []


def test_an_optimiser_that_no_built_in_recipe_has_is_not_judged() -> None:
    assert said(optimizer__name="sgd", optimizer__lr=0.01, source__lr=0.01) == []


def test_sets_that_share_images() -> None:
    photos, more = {"a.png", "b.png"}, {"b.png", "c.png"}
    (told,) = mistakes.overlaps({"source": {"x"}, "target": photos, "val": more})
    assert told.startswith("data.target and data.val: 1 of 2 images are the same") and "measure on others" in told
    assert len(list(mistakes.overlaps({"source": photos, "target": photos, "val": photos, "ceiling": photos}))) == 3
    assert not list(mistakes.overlaps({"source": {"x"}, "target": photos, "ceiling": photos})), "both are for training"


def test_classes_that_no_pseudo_label_has() -> None:
    (told,) = mistakes.absent_labels("initialisation", {"road": 0.9, "pole": 0.0, "sign": 0.0, "car": 0.1}, "warmup")
    assert "pole or sign" in told and "raise warmup.iterations" in told and "leave them out" in told
    (told,) = mistakes.absent_labels("stage 2", {"road": 1.0, "pole": 0.0}, "start")
    assert "start from another model" in told
    assert not list(mistakes.absent_labels("stage 3", {"road": 1 - 1e-9, "pole": 1e-9}, "distill-1"))
