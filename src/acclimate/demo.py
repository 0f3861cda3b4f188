"""The demo: adapt to a domain without labels on the built-in benchmark, from nothing, in minutes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from acclimate import recipe as recipes
from acclimate.data import streets
from acclimate.journal import Journal
from acclimate.pipeline import adapt
from acclimate.run import Run


def demo(out: Path, overrides: Iterable[str] = (), reuse: Path | None = None) -> Run:
    """Draw the benchmark beside the run folder (once) and run every stage of recipe ``demo`` on it.

    Args:
        out: run folder; the pictures go to ``streets`` beside it.
        overrides: ``key=value`` choices over the recipe.
        reuse: another run, from which finished stages with the same inputs are taken over.
    """
    data = out.parent / "streets"
    Journal(out / "metrics.jsonl").say(f"drawing two street domains into {data} …")
    streets.write(data)
    folders = [f"data.{role}.path={data / role}" for role in ("source", "target", "val", "ceiling")]
    return adapt(recipes.load("demo", [*folders, *overrides]), out, reuse)
