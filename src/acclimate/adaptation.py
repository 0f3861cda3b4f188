"""Adaptation in one call, for those who have two folders and no recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acclimate import pipeline
from acclimate import recipe as recipes
from acclimate.run import Run


def adapt(
    source: str | Path,
    target: str | Path,
    *,
    recipe: str | Path = "laptop",
    labels: str | Path | None = None,
    out: str | Path = "runs/adapt",
    reuse: str | Path | None = None,
    **choices: Any,
) -> Run:
    """Adapt a model from labelled source images to unlabelled target images; called again, the run goes on.

    Args:
        source: folder of the labelled images.
        target: folder of the unlabelled images.
        recipe: built-in recipe or recipe file that says the rest.
        labels: label map of the source: which raw value is which class. Its names are the classes.
        out: run folder.
        reuse: another run folder, from which finished stages with the same inputs are taken over.
        choices: keys of the recipe, such as ``seed=1`` or ``selflabel={"iterations": 800}``.

    Returns:
        The run; ``run.best`` is the adapted model.

    Raises:
        UserError: the recipe, the data or a folder is wrong.
    """
    values = {"data.source.path": source, "data.target.path": target}
    if labels is not None:
        values |= {"data.classes": labels, "data.source.ids": labels}
    overrides = [recipes.as_override(key, value) for key, value in (values | recipes.flatten(choices)).items()]
    return pipeline.adapt(recipes.load(recipe, overrides), Path(out), None if reuse is None else Path(reuse))
