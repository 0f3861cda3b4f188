"""From finished runs to tables and to the goals of the benchmark."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.adaptation.settings import SETTINGS
from benchmarks.adaptation.variants import OURS, VARIANTS
from benchmarks.selection import SHIPPED

TAIL = 0.02
"""Classes with a smaller share of the target's pixels."""


@dataclass(frozen=True)
class Story:
    """What a finished run came to."""

    setting: str
    variant: str
    seed: int
    peak_mb: int
    stages: list[dict[str, Any]]
    """``results.json`` of the run."""
    ranking: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """How well each score without labels ranks the run's checkpoints; empty if they are not kept."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """``environment.json`` of the run: versions, machine, commit."""

    @property
    def minutes(self) -> float:
        """Of learning and measuring, all stages but the ceiling, those taken over from another run included."""
        return sum(row["minutes"] for row in self.stages if row["name"] != "ceiling")

    def of(self, stage: str) -> dict[str, Any] | None:
        """A stage's scores."""
        return next((row for row in self.stages if row["name"] == stage), None)

    @property
    def adapted(self) -> dict[str, Any]:
        """Scores of the run's model: that of the chosen stage."""
        return next(row for row in self.stages if row.get("chosen"))


def adapted_miou(story: Story) -> float:
    """Of the adapted model, in percent."""
    return 100 * story.adapted["mean_iou"]


def mean_of(row: dict[str, Any], tail: bool) -> float:
    """Mean IoU, in percent, of the classes in the tail of the target's distribution, or of the others."""
    total = sum(row["pixels"].values())
    values = [100 * iou for name, iou in row["iou"].items()
              if iou is not None and (row["pixels"][name] < TAIL * total) == tail]  # fmt: skip
    return statistics.mean(values) if values else math.nan


def gap_closed(story: Story, ours: Story | None) -> float | None:
    """How far the adapted model came on the way of `ours` from source-only to the ceiling, in percent."""
    if ours is None or (source := ours.of("source")) is None or (ceiling := ours.of("ceiling")) is None:
        return None
    whole = ceiling["mean_iou"] - source["mean_iou"]
    return 100 * (story.adapted["mean_iou"] - source["mean_iou"]) / whole


def longest(stories: Iterable[Story], setting: str) -> dict[int, Story]:
    """`ours` of each seed in the setting that goes on to the end, which alone has a ceiling."""
    name = SETTINGS[setting].begins_like or setting
    return {story.seed: story for story in stories if story.setting == name and story.variant == OURS}


def lost(story: Story) -> float | None:
    """Points by which the best checkpoint of all stages, or their average, is better than the one chosen.

    None if not all checkpoints were kept.
    """
    rows = [row for row in story.stages if row["name"] not in ("source", "start", "ceiling")]
    kept = [{"0": row["mean_iou"]} if row["name"] == "average" else row.get("candidates") for row in rows]
    if not all(kept):
        return None
    best = max(iou for candidates in kept if candidates for iou in candidates.values())
    return 100 * (best - story.adapted["mean_iou"])


def markdown(stories: Iterable[Story], before: str = "") -> str:
    """For each setting the stages of `ours` and the variants, in the mean and class by class.

    Args:
        before: a text of this function; sections of settings that no story is of are taken over from it.
    """
    stories = list(stories)
    sections = {part.split(":")[0]: f"## {part.strip()}" for part in re.split("^## ", before, flags=re.M)[1:]}
    for name in SETTINGS:
        if here := [story for story in stories if story.setting == name]:
            sections[name] = section(name, here, longest(stories, name))
    return "\n\n".join(["# Adaptation, measured", *(sections[name] for name in SETTINGS if name in sections)]) + "\n"


def section(setting: str, stories: list[Story], ways: Mapping[int, Story]) -> str:
    """All tables of a setting."""
    parts = [f"## {setting}: {SETTINGS[setting].about}"]
    if stages := stages_of_ours(stories):  # not on record when what it computes has changed
        parts += [stages_table(stages), classes_table(stages)]
    parts += [variants_table(stories, ways)]
    parts += [variants_classes_table(stories)] if len({story.variant for story in stories}) > 1 else []
    parts += [ranking_table(ranked)] if (ranked := [story for story in stories if story.ranking]) else []
    return "\n\n".join(parts)


def stages_of_ours(stories: list[Story]) -> dict[str, list[dict[str, Any]]]:
    """By title of a stage, its scores in each seed."""
    rows = [row for story in stories if story.variant == OURS for row in story.stages]
    return {title: [row for row in rows if row["title"] == title] for title in dict.fromkeys(r["title"] for r in rows)}


def stages_table(stages: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Of `ours`: each stage's mIoU, mean of the tail, mean of the others; minutes are a median, as some runs pause."""
    lines = ["| ours | mIoU, % | tail | others | minutes |", "|---|---:|---:|---:|---:|"]
    for title, rows in stages.items():
        values = [
            [100 * row["mean_iou"] for row in rows],
            *([mean_of(row, tail) for row in rows] for tail in (True, False)),
        ]
        cells = [*map(spread, values), f"{statistics.median(row['minutes'] for row in rows):.1f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def classes_table(columns: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Each class's IoU, a column for each stage with its scores in each seed."""
    cells = {name: class_cells(rows) for name, rows in columns.items()}
    lines = [f"| IoU, % | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in next(iter(cells.values())):
        lines.append(f"| {name} | {' | '.join(column[name] for column in cells.values())} |")
    return "\n".join(lines)


def class_cells(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Each class's IoU and the mean over the seeds of one stage; empty for a class that no image shows."""
    named = {name: [100 * row["iou"][name] for row in rows if row["iou"][name] is not None] for name in rows[0]["iou"]}
    named["mIoU"] = [100 * row["mean_iou"] for row in rows]
    return {name: spread(values) for name, values in named.items()}


def variants_classes_table(stories: list[Story]) -> str:
    """Each class's IoU of the adapted models, a line for each variant: there may be twenty."""
    adapted = {v: rows for v in VARIANTS if (rows := [s.adapted for s in stories if s.variant == v])}
    cells = {variant: class_cells(rows) for variant, rows in adapted.items()}
    classes = next(iter(cells.values()))
    lines = [f"| IoU, % | {' | '.join(classes)} |", f"|---|{'---:|' * len(classes)}"]
    return "\n".join([*lines, *(f"| {variant} | {' | '.join(row.values())} |" for variant, row in cells.items())])


def variants_table(stories: list[Story], ways: Mapping[int, Story]) -> str:
    """Each variant's adapted model, the difference to ours over the seeds that both have, and what code it was."""
    lines = ["| variant | seeds | mIoU, % | to ours | tail | others | gap closed, % | minutes | peak, GB | commit |",
             "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"]  # fmt: skip
    for variant in VARIANTS:
        if not (own := [story for story in stories if story.variant == variant]):
            continue
        shares = [share for story in own if (share := gap_closed(story, ways.get(story.seed))) is not None]
        cells = [
            variant, f"{len(own)}", spread(list(map(adapted_miou, own))),
            spread(paired(stories, variant, OURS, adapted_miou), "+") if variant != OURS else "",
            spread([mean_of(story.adapted, tail=True) for story in own]),
            spread([mean_of(story.adapted, tail=False) for story in own]),
            spread(shares), f"{statistics.median(s.minutes for s in own):.1f}",
            f"{max(s.peak_mb for s in own) / 1024:.1f}",
            ", ".join(dict.fromkeys(s.environment.get("git") or "unknown" for s in own)),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ranking_table(stories: list[Story]) -> str:
    """How well scores without labels rank the checkpoints of `ours`, and what choosing by them would lose."""
    lines = ["| score | Spearman | regret | within stages | regret there |", "|---|---:|---:|---:|---:|"]
    for name, numbers in stories[0].ranking.items():
        cells = [f"{statistics.mean(story.ranking[name][key] for story in stories):.2f}" for key in numbers]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired(stories: list[Story], one: str, other: str, value: Callable[[Story], float]) -> list[float]:
    """Differences of two variants, seed by seed: what the seeds have in common falls out."""
    by = {(story.variant, story.seed): value(story) for story in stories}
    seeds = sorted(
        {seed for variant, seed in by if variant == one} & {seed for variant, seed in by if variant == other}
    )
    return [by[one, seed] - by[other, seed] for seed in seeds]


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def goals(stories: Iterable[Story], before: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The project's goals that the finished runs tell something of, with mean and deviation over seeds.

    Args:
        before: goals of this function; those of settings that no story is of are taken over.
    """
    stories = list(stories)
    rows: list[dict[str, Any]] = []

    def goal(name: str, aim: float, values: list[float], setting: str, variants: str, better: str = "higher") -> None:
        if values:
            command = f"python -m benchmarks.adaptation --setting {setting} --variants {variants}"
            title = f"{name} ({setting}, {len(values)} seed{'s' * (len(values) > 1)})"
            measured = {"measured": round(statistics.mean(values), 2)}
            if len(values) > 1:
                measured["sd"] = round(statistics.stdev(values), 2)
            rows.append({"name": title, "goal": aim, **measured, "better": better, "command": command})

    for setting in SETTINGS:
        if not (here := [story for story in stories if story.setting == setting]):
            rows += [row for row in before if f"--setting {setting} " in row["command"]]
        ours = [story for story in here if story.variant == OURS]
        goal("share of the gap closed, %", 50, [g for s in ours if (g := gap_closed(s, s)) is not None], setting, OURS)
        goal("tail's gain over warm-up less the others', points", 0,
             [tail_gain(s) for s in ours if s.of("warmup")], setting, OURS)  # fmt: skip
        goal("share of the way from warm-up to ceiling that the tail has gone, less the others', points", 0,
             [tail_way(s) for s in ours if s.of("warmup") and s.of("ceiling")], setting, OURS)  # fmt: skip
        goal("points that the choice without labels loses", 0.5,
             [points for s in ours if (points := lost(s)) is not None], setting, OURS, "lower")  # fmt: skip
        goal("rank correlation of its score with mIoU, all checkpoints", 0.7,
             [s.ranking[SHIPPED]["spearman"] for s in ours if s.ranking], setting, OURS)  # fmt: skip
        for variant, aim in (
            ("official", 3),
            ("naive self-training", 2),
            ("mean teacher", 2),
            ("no self-labelling", 1.5),
        ):
            over = paired(here, OURS, variant, adapted_miou)
            goal(f"ours over {variant}, points of mIoU", aim, over, setting, f'"{variant}"')
    return rows


def tail_gain(story: Story) -> float:
    """Points that the tail gained over the warm-up, less what the others gained."""
    return gained(story, story.adapted, tail=True) - gained(story, story.adapted, tail=False)


def tail_way(story: Story) -> float:
    """The same in percent of what target labels add to each: the tail of small things gains little even by these."""
    ceiling = story.of("ceiling")
    assert ceiling is not None
    tail, others = (100 * gained(story, story.adapted, of) / gained(story, ceiling, of) for of in (True, False))
    return tail - others


def gained(story: Story, row: dict[str, Any], tail: bool) -> float:
    """Points over the warm-up, in the mean of the tail or of the others."""
    warmup = story.of("warmup")
    assert warmup is not None
    return mean_of(row, tail) - mean_of(warmup, tail)
