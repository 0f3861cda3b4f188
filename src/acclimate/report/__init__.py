"""The report: one HTML file that holds all of a run, or compares several, and opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from acclimate import __version__
from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.inference import pick_device
from acclimate.report import numbers, scenes
from acclimate.report.charts import Bar, bars, colour
from acclimate.report.record import Record, open_record

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(folders: Sequence[Path], out: Path | None = None, device: str | torch.device = "auto") -> Path:
    """Write the report of a run, or of several side by side.

    What is finished is reported; a run may go on afterwards. Without the images that the recipe names there are no
    pictures, and the page says so.

    Args:
        folders: run folders; of several, the first is what the others are compared with.
        out: the file to write; by default ``report.html`` in the first folder.
        device: what the models look at pictures on.

    Returns:
        The file written.

    Raises:
        UserError: not a run folder, nothing finished or something damaged in it, runs of different classes, or the
            file cannot be written.
    """
    records = [open_record(folder) for folder in folders]
    _require_same_classes(records)
    path = out or Path(folders[0]) / REPORT
    where = pick_device(device) if isinstance(device, str) else device
    content = {"runs": [_run(record, number, where) for number, record in enumerate(records, start=1)],
               "comparison": _comparison(records, where) if len(records) > 1 else None,
               "version": __version__}  # fmt: skip
    page = _templates().get_template("report.html").render(content)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _run(record: Record, number: int, device: torch.device) -> dict[str, Any]:
    rows, table = numbers.classes(record)
    score_chart, stage_table = numbers.stage_scores(record)
    matrices = [numbers.confusion(record, row) for row in (record.adapted, record.base) if row]
    return {
        "id": f"run{number}",
        "name": record.name,
        "folder": str(record.run.folder),
        "recipe": record.run.recipe,
        "headline": numbers.headline(record),
        "classes": rows,
        "class_table": table,
        "score_chart": score_chart,
        "stage_table": stage_table,
        "losses": numbers.losses(record),
        "candidates": numbers.candidates(record),
        "distribution": numbers.distribution(record),
        "confusion": [matrix for matrix in matrices[: 1 if record.adapted is record.base else 2] if matrix],
        "settings": numbers.settings(record),
        "pictures": scenes.panels(record, device),
    }


def _comparison(records: Sequence[Record], device: torch.device) -> dict[str, Any]:
    measured = all(record.measured for record in records)
    heads = [numbers.headline(record) for record in records]
    rows = [
        [
            record.name,
            numbers.percent(numbers.score_of(record.base, measured)),
            numbers.percent(numbers.score_of(record.adapted, measured)),
            record.adapted["title"],
            f"{100 * head['share']:.0f} %" if head["share"] is not None and measured else "–",
            f"{sum(row['minutes'] for row in record.rows):.0f}",
        ]
        for record, head in zip(records, heads, strict=True)
    ]
    header = ["run", "before, %", "adapted, %", "model of", "of the gap", "minutes"]
    kind = "mIoU, measured" if measured else "mIoU as estimated without labels"
    return {
        "measured": measured,
        "runs": [(record.name, colour(number)) for number, record in enumerate(records)],
        "table": numbers.Table(kind, header, rows),
        "classes": _compared_classes(records, measured),
        "recipes": numbers.recipe_differences(records),
        "pictures": scenes.compared(records, device),
    }


def _compared_classes(records: Sequence[Record], measured: bool) -> list[dict[str, Any]]:
    rows = []
    for name, frequency in records[0].frequency().items():
        values = [numbers.ious_of(record.adapted, measured).get(name) for record in records]
        drawn = [Bar(record.name, value, colour(number))
                 for number, (record, value) in enumerate(zip(records, values, strict=True))]  # fmt: skip
        rows.append({"name": name, "share": numbers.share(frequency), "bars": bars(drawn, thickness=8),
                     "values": [numbers.percent(value) for value in values]})  # fmt: skip
    return rows


def _require_same_classes(records: Sequence[Record]) -> None:
    first = records[0]
    for record in records[1:]:
        if record.space.classes != first.space.classes:
            raise UserError(
                f"{record.run.folder}: its classes ({', '.join(record.space.classes)}) are not those of "
                f"{first.run.folder} ({', '.join(first.space.classes)}); compare runs of the same classes"
            )


def _templates() -> Environment:
    """Names of classes, files and runs come from outside: all that is filled in is escaped."""
    return Environment(
        loader=PackageLoader("acclimate.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
