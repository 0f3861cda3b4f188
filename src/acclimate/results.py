"""What a run leaves for its reader: a table of all stages, and pictures of the same images before and after."""

from __future__ import annotations

import html
import math
from typing import Any

import torch
from rich.table import Table

from acclimate.data.datasets import ImageSet, LabelledSet
from acclimate.evaluation import mean_name
from acclimate.files import atomic, write_json
from acclimate.inference import predict_labels
from acclimate.journal import Journal
from acclimate.networks.weights import load_model
from acclimate.pictures import comparison
from acclimate.run import MODEL, Run, Stage

PICTURED = 4
"""Images in the comparison, evenly spaced over the set: not chosen for how they came out."""


def report_results(run: Run, stages: list[Stage], shown: ImageSet, device: torch.device, journal: Journal) -> None:
    """Write ``results.json``, ``results.md`` and ``comparison.png``, and print the table.

    Args:
        shown: images to picture, with a column for their labels if it has any.
    """
    rows = [row_of(run, stage) for stage in stages if stage.name != "initialise"]
    write_json(run.folder / "results.json", rows)
    with atomic(run.folder / "results.md") as temporary:
        temporary.write_text(markdown(rows), encoding="utf-8")
    draw_comparison(run, rows, shown, device)
    journal.console.print(table(rows))
    if share := gap_closed(rows):
        journal.say(share)
    for what, name in (("model", MODEL), ("pictures", "comparison.png"), ("table", "results.md")):
        journal.say(f"{what + ':':<10}{run.folder / name}")


def row_of(run: Run, stage: Stage) -> dict[str, Any]:
    """What is on record of a finished stage: name, title, minutes, iterations, and scores where there are labels."""
    scores = run.scores(stage.name) if run.recipe.data.val.path else None
    record = {key: value for key, value in (run.done(stage.name) or {}).items() if key != "files"}
    return {**record, **(scores or {})}


def table(rows: list[dict[str, Any]]) -> Table:
    """The stages as columns and the classes as rows, IoU in percent, for a terminal."""
    drawn = Table(title="IoU on the labelled target images, %" if _scored(rows) else "Stages", title_justify="left")
    drawn.add_column("")
    for row in rows:
        drawn.add_column(row["title"], justify="right")
    cells = _cells(rows)
    for number, (name, *values) in enumerate(cells):
        drawn.add_row(name, *values, style="bold" if name == "mIoU" else None, end_section=number == len(cells) - 3)
    return drawn


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table as Markdown."""
    head = f"| IoU, % | {' | '.join(row['title'] for row in rows)} |"
    rule = f"|---|{'---:|' * len(rows)}"
    return "\n".join([head, rule, *(f"| {' | '.join(map(_escaped, cells))} |" for cells in _cells(rows))]) + "\n"


def _escaped(cell: str) -> str:
    """Names of classes are free: none may end a cell or become a tag."""
    return html.escape(cell, quote=False).replace("\\", "\\\\").replace("|", "\\|")


def gap_closed(rows: list[dict[str, Any]]) -> str | None:
    """How much of the way from source-only to the ceiling the adapted model went, in words."""
    score = {row["name"]: row["mean_iou"] for row in rows if "mean_iou" in row}
    adapted = [row for row in rows if row["name"] not in ("start", "source", "ceiling")]
    if not adapted or not {"source", "ceiling"} <= score.keys():
        return None
    last = adapted[-1]
    gap, gained = score["ceiling"] - score["source"], score[last["name"]] - score["source"]
    if gap <= 0:
        return f"The ceiling ({100 * score['ceiling']:.1f}) is not above source only: there is no gap to close."
    return (
        f"{last['title']} closes {100 * gained / gap:.0f} % of the gap of {100 * gap:.1f} points between "
        "source only and a model trained with target labels."
    )


def draw_comparison(run: Run, rows: list[dict[str, Any]], shown: ImageSet, device: torch.device) -> None:
    """A grid of a few images: the photo, what each stage's model sees in it, and the labels if there are any."""
    count = min(PICTURED, len(shown))
    indices = [(2 * i + 1) * len(shown) // (2 * count) for i in range(count)]
    images = [shown.image(i) for i in indices]
    columns, headers = [], []
    for row in rows:
        network, space, meta = load_model(run.model(row["name"]))
        network.to(device)
        columns.append([predict_labels(network, image, meta["width"]) for image in images])
        headers.append(f"{row['title']}{_suffix(row)}")
    if isinstance(shown, LabelledSet):
        columns.append([shown.label(i) for i in indices])
        headers.append("labels")
    pictured = [(image, list(labels)) for image, *labels in zip(images, *columns, strict=True)]
    comparison(pictured, ["target image", *headers], space, run.folder / "comparison.png")


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Lines of the table: classes, mean, minutes, each with one value per stage."""
    lines = []
    if scored := _scored(rows):
        lines += [[name, *(_percent(row["iou"][name]) for row in rows)] for name in scored[0]["iou"]]
        lines.append(["mIoU", *(_percent(row["mean_iou"]) for row in rows)])
        for name in scored[0].get("subsets", {}):
            lines.append([mean_name(name), *(_percent(row.get("subsets", {}).get(name)) for row in rows)])
    lines.append(["iterations", *(str(row["iterations"]) for row in rows)])
    lines.append(["minutes", *(f"{row['minutes']:.1f}" for row in rows)])
    return lines


def _scored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "mean_iou" in row]


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _suffix(row: dict[str, Any]) -> str:
    return f"\n{_percent(row['mean_iou'])} mIoU" if "mean_iou" in row else ""
