"""Arguments that several commands take, and what they stand for."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from acclimate.errors import UserError

if TYPE_CHECKING:
    from acclimate.prediction import Model
    from acclimate.recipe import Recipe

LAYOUTS = ("folder", "gta5", "synthia", "cityscapes", "camvid")
RECIPE_USAGE = "[RECIPE] [key=value ...] --source DIR --target DIR [option ...]"
_ROLES = {
    "source": "labelled images to learn from",
    "target": "unlabelled images to adapt to; labels of theirs are never opened",
    "val": "labelled target images, to measure with and for nothing else",
    "ceiling": "labelled target images for the reference model that target labels would give",
}


def recipe_arguments(parser: ArgumentParser) -> None:
    """Recipe, overrides, and flags that stand for overrides: a flag's ``dest`` is the recipe's key."""
    parser.add_argument(
        "words", nargs="*", metavar="RECIPE | key=value",
        help="built-in recipe or YAML file (default: laptop), and choices over it such as selflabel.iterations=500",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="start of all randomness")
    data = parser.add_argument_group("data")
    for role, meaning in _ROLES.items():
        data.add_argument(f"--{role}", dest=f"data.{role}.path", metavar="DIR", help=meaning)
    data.add_argument("--labels", metavar="MAP.yaml", help="own label map of the source; its names are the classes")
    data.add_argument("--classes", dest="data.classes", metavar="SPACE", help="built-in label space, or a label map")
    files = parser.add_argument_group(
        "how the files of a set lie",
        f"LAYOUT: {', '.join(LAYOUTS)}; default: a plain folder of images. SPLIT: train, val, … of a known layout. "
        "LABELS: folder of the label files, or a template such as gt/{name}_id.png. "
        "IDS: what raw label values mean: cityscapes, cityscapes-train, cityscapes-colours, gta5, synthia, camvid, "
        "camvid32, train, or a label map.",
    )
    for role in _ROLES:
        for field in ("layout", "split") if role == "target" else ("layout", "split", "labels", "ids"):
            allowed = LAYOUTS if field == "layout" else None
            files.add_argument(f"--{role}-{field}", dest=f"data.{role}.{field}", choices=allowed, metavar=field.upper())


def recipe_of(args: Namespace) -> Recipe:
    """The recipe that the words and flags of a command line describe."""
    from acclimate import recipe

    overrides = [word for word in args.words if "=" in word]
    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise UserError(f"one recipe at a time, found {', '.join(names)}; overrides are written key=value")
    flags = {key: value for key, value in vars(args).items() if key.startswith("data.") and value is not None}
    if args.labels is not None:
        flags |= {"data.classes": args.labels, "data.source.ids": args.labels}
    if args.seed is not None:
        flags["seed"] = args.seed
    from_flags = [recipe.as_override(key, value) for key, value in flags.items()]
    return recipe.load(names[0] if names else "laptop", from_flags + overrides)


def run_arguments(parser: ArgumentParser, out: Path | None = None) -> None:
    """The run folder, and another to take finished stages from."""
    usual = f" (default: {out})" if out else ""
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
        required=out is None,
        metavar="RUN",
        help=f"run folder; the run in it goes on{usual}",
    )
    parser.add_argument("--reuse", type=Path, metavar="RUN", help="take over finished stages that have the same inputs")


def look_arguments(parser: ArgumentParser) -> None:
    """How a model looks at images; by default as in training, once."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    looks = parser.add_argument_group("how the model looks at images", "Probabilities of all looks are averaged.")
    looks.add_argument(
        "--width", type=int, metavar="N", help="pixels, to which images are scaled (default: the model's)"
    )
    looks.add_argument("--scales", type=_scales, default=(1.0,), metavar="S,S,…", help="factors on it: 0.75,1,1.25")
    looks.add_argument("--flip", action="store_true", help="at the mirrored image as well")
    looks.add_argument("--window", type=_window, metavar="HxW", help="through overlapping windows of so many pixels")


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.75,1,1.25, found {text!r}") from None


def _window(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"expected HEIGHT x WIDTH such as 512x1024, found {text!r}")
    return int(sides[0]), int(sides[1])


def model_of(args: Namespace) -> Model:
    """The model that a command line names, looking at images as it says."""
    from acclimate.inference import Inference
    from acclimate.prediction import load

    return load(args.model, args.device, args.width, Inference(args.scales, args.flip, args.window))
