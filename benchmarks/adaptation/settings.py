"""Pairs of domains with a budget: every variant of a setting has the same data, iterations and batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from acclimate.data import streets

SHORT = ("distill.rounds=0", "data.ceiling.path=", "selflabel.iterations=180")
"""So that a run takes five minutes; the longer setting has the ceiling."""
KEEP = frozenset({"selection.keep=true"})
"""So that the choice without labels can be compared with an oracle's."""


@dataclass(frozen=True)
class Setting:
    """What is adapted from and to, and how long it may take."""

    about: str
    recipe: str
    budget: Collection[str]
    """``key=value`` choices over the recipe that make it short enough."""
    folders: Callable[[Folders], list[str]]
    """The data, as choices of the recipe."""
    begins_like: str = ""
    """A longer setting, whose `ours` lends what it has done of the stages that both have in common."""


@dataclass(frozen=True)
class Folders:
    """Where the pictures lie."""

    out: Path
    """The built-in benchmark is drawn there."""
    renders: Path | None
    """Rendered streets with Cityscapes ids."""
    photos: Path | None
    """CamVid as SegNet's authors lay it out."""


def drawn(folders: Folders) -> list[str]:
    """The built-in benchmark, drawn once."""
    root = folders.out / "streets"
    streets.write(root)
    return [f"data.{role}.path={root / role}" for role in ("source", "target", "val", "ceiling")]


def camvid(folders: Folders) -> list[str]:
    """Rendered streets to CamVid's photographs; labels of the train photographs are the ceiling's alone."""
    if folders.renders is None or folders.photos is None:
        raise SystemExit("settings of CamVid need --renders DIR (ids of Cityscapes) and --photos DIR (CamVid)")
    choices = ["data.classes=camvid11", f"data.source.path={folders.renders}", "data.source.ids=cityscapes"]
    choices += [f"data.{role}.path={folders.photos}" for role in ("target", "val", "ceiling")]
    choices += [f"data.{role}.layout=camvid" for role in ("target", "val", "ceiling")]
    return [*choices, "data.ceiling.labels=trainannot_for_ceiling_only"]


SETTINGS = {
    "demo": Setting("the built-in benchmark, recipe demo", "demo", KEEP, drawn),
    "demo-stage-1": Setting("the built-in benchmark, recipe demo to a shorter stage 1", "demo", SHORT, drawn, "demo"),
    "camvid": Setting("renders to CamVid, recipe laptop", "laptop", KEEP, camvid),
}
