"""How far our functions are from the official implementation's values: the table of docs/fidelity.md.

    ACCLIMATE_GOLDEN=FOLDER python benchmarks/fidelity.py

FOLDER holds the golden vectors. The comparisons are those of tests/conformance; where several files test
the same, the one with the largest difference is shown.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

CONFORMANCE = Path(__file__).parents[1] / "tests" / "conformance"
sys.path.insert(0, str(CONFORMANCE))

from cases import case_of, load  # noqa: E402

if TYPE_CHECKING:
    from cases import Comparison


def main() -> None:
    """Print the table."""
    files = sorted(Path(os.environ.get("ACCLIMATE_GOLDEN", "golden")).glob("*.npz"))
    if not files:
        sys.exit("no golden vectors; set ACCLIMATE_GOLDEN to the folder that has them")
    groups: dict[str, list[Comparison]] = {}
    for file in files:
        case = case_of(file)
        if case is None:
            sys.exit(f"{file.name}: nothing in tests/conformance/cases.py says what to compare it with")
        for comparison in case(load(file)):
            groups.setdefault(comparison.name, []).append(comparison)
    print(table(groups))


def table(groups: dict[str, list[Comparison]]) -> str:
    """Official and our value, their difference and how much the tests allow, in Markdown."""
    lines = ["| function | files | official | ours | largest difference | allowed |", "|---|---:|---|---|---:|---:|"]
    for name, comparisons in groups.items():
        worst = max(comparisons, key=lambda comparison: comparison.difference())
        values = f"{in_short(worst.official)} | {in_short(worst.ours)}"
        found, allowed = (amount(size, worst.kind) for size in (worst.difference(), worst.limit))
        lines.append(f"| {name} | {len(comparisons)} | {values} | {found} | {allowed} |")
    return "\n".join(lines)


def in_short(value: Any) -> str:
    """A single value; of an array its size and its root mean square; of names their number."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return f"{array.size} names"
    if array.ndim == 0:
        return f"{array.item():.7g}"
    size = " × ".join(map(str, array.shape))
    return size if array.dtype.kind != "f" else f"{size}, RMS {np.sqrt(np.nanmean(np.square(array, dtype=float))):.7g}"


def amount(size: float, kind: str) -> str:
    """A difference in words."""
    if size == 0:
        return "0"
    return {"relative": f"{size:.1e}", "share": f"{100 * size:.2g} %", "levels": f"{size:g} grey level"}[kind]


if __name__ == "__main__":
    main()
