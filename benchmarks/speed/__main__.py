"""Measure, print a table, and keep the results.

    python -m benchmarks.speed              # all; minutes, on an otherwise idle machine
    python -m benchmarks.speed data step    # some; the other lines of benchmarks/results.json stay

Every line is measured in one run on one machine: ratios of what is timed in turn, beside the limit and the goal.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
from pathlib import Path

import torch

from acclimate.files import write_json
from benchmarks.speed.measure import Row

PARTS = ("data", "step", "selflabelling", "memory", "choices", "passes", "growth")
"""Modules of this package; each yields its rows from ``rows()``."""
RESULTS = Path(__file__).parents[1] / "results.json"


def main() -> None:
    """Measure the parts asked for; `benchmarks/results.json` has the newest of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part", help=", ".join(PARTS))
    parts = parser.parse_args().parts or PARTS
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    lines = ["| | measured | goal | limit | |", "|---|---:|---:|---:|---|"]
    for part in parts:  # which may say more on the way than its rows do
        rows = []
        for row in importlib.import_module(f"benchmarks.speed.{part}").rows():
            rows.append(row)
            lines.append(line(row))
            print(lines[-1], flush=True)
        keep(rows, part)
    print("\n" + "\n".join(lines))


def line(row: Row) -> str:
    """A row in Markdown."""
    sign = "≤" if row.better == "lower" else "≥"
    verdict = "met" if row.met else "**missed**"
    return f"| {row.name} | {row.measured:.3g} | {sign} {row.goal:g} | {row.limit:.3g} | {verdict} |"


def keep(rows: list[Row], part: str) -> None:
    """Put the rows in the place of the part's earlier ones."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    others = [row for row in known if row["command"].split()[-1] != part]
    order = [f"python -m benchmarks.speed {name}" for name in PARTS]
    merged = sorted([*others, *map(dataclasses.asdict, rows)], key=lambda row: order.index(row["command"]))
    write_json(RESULTS, merged)


if __name__ == "__main__":
    main()
