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
from acclimate.progress import print_table
from acclimate.run import MODEL, Run, Stage

_ESTIMATED = "The run's model ({}): IoU as estimated without labels, %"
PICTURED = 4
"""Images in the comparison, evenly spaced over the set: not chosen for how they came out."""


def report_results(run: Run, stages: list[Stage], shown: ImageSet, device: torch.device, journal: Journal) -> None:
    """Write ``results.json``, ``results.md``, ``comparison.png`` and ``report.html``, and print the table.

    Args:
        shown: images to picture, with a column for their labels if it has any.
    """
    rows = [row_of(run, stage) for stage in stages if stage.name != "initialise"]
    write_json(run.folder / "results.json", rows)
    chosen = next(row for row in rows if row.get("chosen"))
    with atomic(run.folder / "results.md") as temporary:
        temporary.write_text(f"{markdown(rows)}\n{estimate_markdown(chosen)}", encoding="utf-8")
    draw_comparison(run, rows, shown, device)
    drawn = _draw_report(run, device, journal)
    print_table(journal.console, table(rows))
    print_table(journal.console, estimate_table(chosen))
    if share := gap_closed(rows):
        journal.say(share)
    left = [("model", MODEL), ("pictures", "comparison.png"), ("table", "results.md"), *drawn]
    for what, name in left:
        journal.say(f"{what + ':':<10}{run.folder / name}")


def _draw_report(run: Run, device: torch.device, journal: Journal) -> list[tuple[str, str]]:
    """Write the page; what it is and its name, or nothing: a page that cannot be drawn is no reason to lose a run."""
    from acclimate.report import REPORT, write_report  # which reads runs as the pipeline does, and that needs this file

    try:
        write_report([run.folder], device=device)
    except Exception as error:
        journal.say(f"warning: no report ({error}); `acclimate report {run.folder}` tries again")
        return []
    return [("report", REPORT)]


def row_of(run: Run, stage: Stage) -> dict[str, Any]:
    """What is on record of a finished stage: name, title, minutes, iterations, scores where there are labels.

    And of the choice without labels: ``chosen_iteration`` of the stage, whether its model is the run's (``chosen``),
    the ``estimate`` of its scores; ``oracle``, if candidates were measured.
    """
    scores = run.scores(stage.name) if run.recipe.data.val.path else None
    record = {key: value for key, value in (run.done(stage.name) or {}).items() if key != "files"}
    if within := run.selection(stage.name):
        record["chosen_iteration"] = within["chosen"]
    among = run.selection() or {"chosen": None, "estimates": {}}
    if stage.name in among["estimates"]:
        record |= {"chosen": among["chosen"] == stage.name, "estimate": among["estimates"][stage.name]}
    return {**record, **{key: value for key, value in (scores or {}).items() if key != "confusion"}}


def table(rows: list[dict[str, Any]]) -> Table:
    """The stages as columns and the classes as rows, IoU in percent, for a terminal."""
    drawn = Table(title="IoU on the labelled target images, %" if _scored(rows) else "Stages")
    drawn.add_column("")
    for row in rows:
        drawn.add_column(row["title"], justify="right")
    scores, facts = _score_lines(rows), _fact_lines(rows)
    for name, *values in scores:
        drawn.add_row(name, *values, style="bold" if name == "mIoU" else None)
    drawn.add_section()
    for line in facts:
        drawn.add_row(*line)
    return drawn


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table as Markdown."""
    head = f"| IoU, % | {' | '.join(row['title'] for row in rows)} |"
    rule = f"|---|{'---:|' * len(rows)}"
    lines = [*_score_lines(rows), *_fact_lines(rows)]
    return "\n".join([head, rule, *(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)]) + "\n"


def estimate_table(row: dict[str, Any]) -> Table:
    """What the run's model may reach, class by class, as unlabelled images alone tell it; for a terminal."""
    drawn = Table("", title=_ESTIMATED.format(row["title"]))
    for header in _estimate_headers(row):
        drawn.add_column(header, justify="right")
    for line in _estimate_lines(row):
        drawn.add_row(*line, style="bold" if line[0] == "mIoU" else None)
    return drawn


def estimate_markdown(row: dict[str, Any]) -> str:
    """The same as Markdown."""
    headers = _estimate_headers(row)
    lines = [f"| {' | '.join(['IoU, %', *headers])} |", f"|---|{'---:|' * len(headers)}"]
    lines += [f"| {' | '.join(map(_escaped, cells))} |" for cells in _estimate_lines(row)]
    return f"{_ESTIMATED.format(row['title'])}\n\n" + "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """Names of classes are free: none may end a cell or become a tag."""
    return html.escape(cell, quote=False).replace("\\", "\\\\").replace("|", "\\|")


def gap_closed(rows: list[dict[str, Any]]) -> str | None:
    """How much of the way from source-only to the ceiling the adapted model went, in words."""
    score = {row["name"]: row["mean_iou"] for row in rows if "mean_iou" in row}
    adapted = [row for row in rows if row["name"] not in ("start", "source", "ceiling")]
    if not adapted or not {"source", "ceiling"} <= score.keys():
        return None
    last = next((row for row in adapted if row.get("chosen")), adapted[-1])
    gap, gained = score["ceiling"] - score["source"], score[last["name"]] - score["source"]
    if gap <= 0:
        return f"The ceiling ({100 * score['ceiling']:.1f}) is not above source only: there is no gap to close."
    return (
        f"The run's model ({last['title']}) closes {100 * gained / gap:.0f} % of the gap of {100 * gap:.1f} points "
        "between source only and a model trained with target labels."
    )


def draw_comparison(run: Run, rows: list[dict[str, Any]], shown: ImageSet, device: torch.device) -> None:
    """A grid of a few images: the photo, what each stage's model sees in it, and the labels if there are any."""
    count = min(PICTURED, len(shown))
    indices = [(2 * i + 1) * len(shown) // (2 * count) for i in range(count)]
    images = [shown.image(i) for i in indices]
    columns, headers, spaces = [], [], []
    for row in rows:
        network, space, meta = load_model(run.model(row["name"]))
        network.to(device)
        columns.append([predict_labels(network, image, meta["width"]) for image in images])
        headers.append(f"{row['title']}{_suffix(row)}")
        spaces.append(space)
    if isinstance(shown, LabelledSet):
        columns.append([shown.label(i) for i in indices])
        headers.append("labels")
    pictured = [(image, list(labels)) for image, *labels in zip(images, *columns, strict=True)]
    comparison(pictured, ["target image", *headers], spaces[-1], run.folder / "comparison.png")


def _score_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Lines of the table, each with one value per stage: classes, means, and what can be said without labels."""
    lines = []
    if scored := _scored(rows):
        lines += [[name, *(_percent(row["iou"][name]) for row in rows)] for name in scored[0]["iou"]]
        lines.append(["mIoU", *(_percent(row["mean_iou"]) for row in rows)])
        for name in scored[0].get("subsets", {}):
            lines.append([mean_name(name), *(_percent(row.get("subsets", {}).get(name)) for row in rows)])
    if any("oracle" in row for row in scored):
        lines.append(["oracle", *(_percent(row.get("oracle", row)["mean_iou"]) for row in rows)])
    lines.append(["estimated", *(_spread(row.get("estimate")) for row in rows)])
    return lines


def _fact_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = [["iterations", *(str(row["iterations"]) for row in rows)]]
    if any("chosen_iteration" in row for row in rows):
        lines.append(["kept after", *(str(row.get("chosen_iteration", row["iterations"])) for row in rows)])
    return [*lines, ["minutes", *(f"{row['minutes']:.1f}" for row in rows)]]


def _estimate_headers(row: dict[str, Any]) -> list[str]:
    return ["estimated", *(["measured"] if "mean_iou" in row else [])]


def _estimate_lines(row: dict[str, Any]) -> list[list[str]]:
    said = row["estimate"]
    told = [(name, {"mean_iou": iou, "error": said["iou_error"][name]}) for name, iou in said["iou"].items()]
    lines = [[name, _spread(one)] for name, one in [*told, ("mIoU", said)]]
    if "mean_iou" not in row:
        return lines
    measured = [*(row["iou"][name] for name, _ in told), row["mean_iou"]]
    return [[*line, _percent(value)] for line, value in zip(lines, measured, strict=True)]


def _spread(said: dict[str, Any] | None) -> str:
    return "–" if said is None else f"{100 * said['mean_iou']:.1f} ± {100 * said['error']:.1f}"


def _scored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "mean_iou" in row]


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _suffix(row: dict[str, Any]) -> str:
    return f"\n{_percent(row['mean_iou'])} mIoU" if "mean_iou" in row else ""
