"""The panels that numbers alone fill: headline, classes, stages, losses, class distribution, confusion, recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from acclimate import recipe as recipes
from acclimate.report.charts import Bar, Line, bars, colour, lines, nice
from acclimate.report.record import Record
from acclimate.results import gap_closed

SHARES = {
    "share_labels": ("pseudo labels", "c5"),
    "share_assignments": ("assignments", "c1"),
    "share_average": ("moving average", "c0"),
}
"""What stage 1 records of the class distribution, how that is called, and its colour."""


class Chart(NamedTuple):
    """A drawing and the words around it."""

    title: str
    drawing: Markup
    note: str = ""
    y_labels: Sequence[str] = ()
    """From the top down."""
    x_labels: Sequence[str] = ()
    legend: Sequence[tuple[str, str, str]] = ()
    """Name, colour and a value, in words."""


class Table(NamedTuple):
    """What a chart shows, as text."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def percent(value: float | None) -> str:
    """In percent, without the sign."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed(value: float) -> str:
    """Points of a difference, with a true minus."""
    return f"{100 * value:+.1f}".replace("-", "−")


def share(value: float) -> str:
    """A share of pixels; rare classes keep a second digit."""
    return f"{100 * value:.2f} %" if 0 < value < 0.01 else f"{100 * value:.1f} %"


def score_of(row: dict[str, Any] | None, measured: bool) -> float | None:
    """The mean IoU of a row: measured, or estimated without labels."""
    if row is None:
        return None
    return row.get("mean_iou") if measured else (row.get("estimate") or {}).get("mean_iou")


def ious_of(row: dict[str, Any] | None, measured: bool) -> dict[str, float | None]:
    """The IoU of each class in a row, likewise."""
    if row is None:
        return {}
    return row.get("iou", {}) if measured else (row.get("estimate") or {}).get("iou", {})


def headline(record: Record) -> dict[str, Any]:
    """Where the run began, where it came, and where target labels would lead."""
    measured = record.measured
    base, adapted, ceiling = record.base, record.adapted, record.ceiling
    first, last, top = (score_of(row, measured) for row in (base, adapted, ceiling))
    steps = [(base["title"], first)] if base and base is not adapted else []
    steps.append(("adapted", last))
    if top is not None:
        steps.append(("ceiling", top))
    gain = last - first if base is not adapted and first is not None and last is not None else None
    gap = top - first if top is not None and first is not None else 0.0
    estimate = adapted.get("estimate")
    return {
        "measured": measured,
        "steps": steps,
        "gain": gain,
        "share": gain / gap if gain is not None and gap > 0 else None,
        "words": gap_closed(record.rows) if measured else None,
        "images": adapted.get("images"),
        "estimate": estimate,
        "title": adapted["title"],
    }  # fmt: skip


def classes(record: Record) -> tuple[list[dict[str, Any]], Table]:
    """A row of bars per class, the most frequent first; and the IoU of all stages as a table."""
    measured = record.measured
    before, after, best = (ious_of(row, measured) for row in (record.base, record.adapted, record.ceiling))
    errors = {} if measured else (record.adapted.get("estimate") or {}).get("iou_error", {})
    rows = []
    for name, frequency in record.frequency().items():
        first, last = before.get(name), after.get(name)
        drawn = [Bar("adapted", last, "c0", errors.get(name, 0.0)), Bar("source only", first, "c7")]
        rows.append({
            "name": name,
            "share": share(frequency),
            "adapted": percent(last),
            "gain": signed(last - first) if last is not None and first is not None else "",
            "bars": bars(drawn, Bar("ceiling", best.get(name), "c1"), thickness=9),
        })  # fmt: skip
    shown = [row for row in record.rows if ious_of(row, measured)]
    lines_ = [[name, share(frequency), *(percent(ious_of(row, measured).get(name)) for row in shown)]
              for name, frequency in record.frequency().items()]  # fmt: skip
    lines_.append(["mean", "", *(percent(score_of(row, measured)) for row in shown)])
    kind = "IoU of every stage, %" if measured else "IoU of every stage as estimated without labels, %"
    return rows, Table(kind, ["class", "share of pixels", *(row["title"] for row in shown)], lines_)


def stage_scores(record: Record) -> tuple[Chart, Table]:
    """Mean IoU from stage to stage, measured and estimated, below the ceiling."""
    rows = [row for row in record.rows if row["name"] != "ceiling"]
    count = len(rows)
    measured = [((number + 0.5) / count, row["mean_iou"]) for number, row in enumerate(rows) if "mean_iou" in row]
    said = [((number + 0.5) / count, row["estimate"]) for number, row in enumerate(rows) if "estimate" in row]
    estimated = [(x, estimate["mean_iou"]) for x, estimate in said]
    drawn = [Line("estimated without labels", estimated, "c2", [estimate["error"] for _, estimate in said])]
    if measured:
        drawn.append(Line("measured", measured, "c0"))
    top = score_of(record.ceiling, record.measured)
    ticks = nice(max([y for line in drawn for _, y in line.points] + [1.04 * (top or 0.0), 0.05]))
    level = (top, "c1") if top is not None else None
    names = ", ".join(f"{row['title']} {percent(score_of(row, record.measured))}" for row in rows)
    drawing = lines(drawn, (0, 1), (0, ticks[-1]), 190, f"Mean IoU by stage, percent: {names}", ticks, True, level)
    legend = [(line.name, line.colour, "") for line in drawn if line.points]
    if level:
        legend.append(("ceiling", "c1", percent(top)))
    chart = Chart("Mean IoU by stage, %", drawing, "", _ticks(ticks, 100), [row["title"] for row in rows], legend)
    return chart, _stage_table(record)


def _stage_table(record: Record) -> Table:
    rows = []
    for row in record.rows:
        estimate = row.get("estimate")
        rows.append([
            row["title"] + (" (the run's model)" if row is record.adapted else ""),
            percent(row.get("mean_iou")),
            f"{percent(estimate['mean_iou'])} ± {percent(estimate['error'])}" if estimate else "–",
            str(row["iterations"]),
            str(row.get("chosen_iteration", row["iterations"])),
            f"{row['minutes']:.1f}",
        ])  # fmt: skip
    header = ["stage", "mIoU, %", "estimated, %", "iterations", "kept after", "minutes"]
    return Table("Stages", header, rows)


def losses(record: Record) -> list[Chart]:
    """For each stage, its losses over the iterations; a loss has one colour in all of them."""
    colours: dict[str, str] = {}
    found = [(row, _terms(record, row["name"])) for row in record.rows]
    return [_loss_chart(row, terms, colours) for row, terms in found if terms]


def candidates(record: Record) -> list[Chart]:
    """For each stage that had a choice, how well its candidates keep their labels."""
    found = [(row, record.run.selection(row["name"])) for row in record.rows]
    return [_candidate_chart(row, within) for row, within in found if within and len(within["candidates"]) > 1]


def _terms(record: Record, stage: str) -> dict[str, list[tuple[float, float]]]:
    terms: dict[str, list[tuple[float, float]]] = {}
    for said in record.metrics:
        if said["stage"] == stage:
            for name, value in said.items():
                if name not in ("stage", "step", "mean_iou") and isinstance(value, int | float):
                    terms.setdefault(name, []).append((said["step"], value))
    return terms


def _loss_chart(row: dict[str, Any], terms: dict[str, list[tuple[float, float]]], colours: dict[str, str]) -> Chart:
    for name in terms:
        colours.setdefault(name, colour(len(colours)))
    drawn = [Line(name, points, colours[name]) for name, points in terms.items()]
    ticks = nice(max(y for points in terms.values() for _, y in points))
    last = max(x for points in terms.values() for x, _ in points)
    legend = [(name, colours[name], f"{points[-1][1]:.3g}") for name, points in terms.items()]
    said = ", ".join(f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in terms.items())
    drawing = lines(drawn, (0, last), (0, ticks[-1]), 150, f"Losses of {row['title']}: {said}", ticks)
    return Chart(row["title"], drawing, "", _ticks(ticks), ["0", f"{last} iterations"], legend)


def _candidate_chart(row: dict[str, Any], within: dict[str, Any]) -> Chart:
    found = within["candidates"]
    points = [(one["step"], one["agreement"]) for one in found]
    drawn = [Line("agreement", points, "c2", [one["error"] for one in found])]
    if measured := row.get("candidates"):
        drawn.append(Line("mIoU, measured", sorted((int(step), value) for step, value in measured.items()), "c0"))
    ticks = nice(max(y for line in drawn for _, y in line.points))
    last = max(x for x, _ in points)
    said = ", ".join(f"{percent(value)} after {step}" for step, value in points)
    drawing = lines(drawn, (0, last), (0, ticks[-1]), 150, f"Candidates of {row['title']}: {said}", ticks, True)
    note = f"Kept: iteration {within['chosen']}."
    legend = [(line.name, line.colour, "") for line in drawn]
    return Chart(
        row["title"], drawing, note, _ticks(ticks, 100), ["0", f"{last} iterations"], legend if measured else ()
    )


def distribution(record: Record) -> tuple[list[Chart], Table] | None:
    """A small chart per class: its share of pseudo labels, assignments and the moving average during stage 1."""
    names = record.space.classes
    said = [one for one in record.metrics if one["stage"] == "selflabel" and "share_average" in one]
    said = [one for one in said if all(len(one[key]) == len(names) for key in SHARES if key in one)]
    if not said:
        return None
    keys = [key for key in SHARES if all(key in one for one in said)]
    charts, rows = [], []
    for name in record.frequency():
        number = names.index(name)
        drawn = [Line(SHARES[key][0], [(one["step"], one[key][number]) for one in said], SHARES[key][1])
                 for key in keys]  # fmt: skip
        ends = [(line.points[0][1], line.points[-1][1]) for line in drawn]
        top = nice(max(y for line in drawn for _, y in line.points), 2)[-1]
        words = "; ".join(f"{line.name} {share(a)} to {share(b)}" for line, (a, b) in zip(drawn, ends, strict=True))
        drawing = lines(drawn, (said[0]["step"], said[-1]["step"]), (0, top), 64, f"{name}: {words}", (0, top))
        charts.append(Chart(name, drawing, f"{share(ends[-1][0])} → {share(ends[-1][1])}", [f"{100 * top:g} %", "0"]))
        rows.append([name, *(share(value) for pair in ends for value in pair)])
    header = ["class", *(f"{SHARES[key][0]}, {when}" for key in keys for when in ("first", "last"))]
    return charts, Table("Share of each class in stage 1, first and last record", header, rows)


def confusion(record: Record, stage: dict[str, Any]) -> dict[str, Any] | None:
    """For each class of the labels, what its pixels were taken for, by frequency; and the worst mistakes."""
    matrix = record.confusion(stage["name"])
    if matrix is None:
        return None
    names = list(record.space.classes)
    order = [names.index(name) for name in record.frequency()]
    rows, mistakes = [], []
    for i in order:
        total = sum(matrix[i])
        shares = [matrix[i][j] / total if total else None for j in order]
        rows.append((names[i], [(names[j], value, i == j) for j, value in zip(order, shares, strict=True)]))
        mistakes += [(value, names[i], names[j]) for j, value in zip(order, shares, strict=True) if value and i != j]
    worst = [{"share": f"{100 * value:.0f} %", "true": true, "seen": seen}
             for value, true, seen in sorted(mistakes, reverse=True)[:5]]  # fmt: skip
    return {"stage": stage["title"], "names": [names[j] for j in order], "rows": rows, "worst": worst}


def settings(record: Record) -> dict[str, Any]:
    """Recipe, what of it differs from the defaults, and environment."""
    environment = dict(record.environment)
    packages = environment.pop("packages", {})
    facts = [(key, value) for key, value in environment.items() if value]
    facts += [(name, version) for name, version in packages.items() if version]
    chosen = recipes.difference(recipes.Recipe(), record.run.recipe)
    return {
        "yaml": recipes.to_yaml(record.run.recipe),
        "chosen": Table("Keys that differ from the defaults", ["key", "default", "this run"], _difference(chosen)),
        "environment": facts,
    }


def recipe_differences(records: Sequence[Record]) -> Table:
    """The keys in which the recipes of several runs differ."""
    flat = [recipes.flatten(recipes.to_dict(record.run.recipe)) for record in records]
    keys = [key for key in flat[0] if any(one.get(key) != flat[0][key] for one in flat)]
    rows = [[key, *(str(one.get(key)) for one in flat)] for key in keys]
    return Table("Keys in which the recipes differ", ["key", *(record.name for record in records)], rows)


def _difference(chosen: dict[str, tuple[Any, Any]]) -> list[list[str]]:
    return [[key, _plain(before), _plain(after)] for key, (before, after) in chosen.items()]


def _plain(value: Any) -> str:
    return "empty" if value in ("", None) else str(value)


def _ticks(ticks: Iterable[float], factor: float = 1) -> list[str]:
    return [f"{factor * value:g}" for value in reversed(list(ticks))]
