"""Our functions against inputs and outputs of the official implementation, file by file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Comparison, case_of, load

GOLDEN = Path(os.environ.get("ACCLIMATE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
REASON = f"no golden vectors in {GOLDEN}; set ACCLIMATE_GOLDEN to the folder that has them"
FILES = [pytest.param(file, id=file.stem) for file in sorted(GOLDEN.glob("*.npz"))]


@pytest.mark.parametrize("file", FILES or [pytest.param(GOLDEN, marks=pytest.mark.skip(reason=REASON), id="absent")])
def test_golden(file: Path) -> None:
    case = case_of(file)
    assert case is not None, f"{file.name}: nothing in cases.py says what to compare it with"
    compared = case(load(file))
    wrong = [
        f"{found.name}: {found.difference():.2g} ({found.kind}), allowed {found.limit:g}"
        for found in compared
        if not found.difference() <= found.limit
    ]
    assert compared and not wrong, f"{file.name}: " + "; ".join(wrong)


@pytest.mark.parametrize(
    ("ours", "official", "kind", "difference"),
    [
        ([1.0, -4.0], [1.0, -5.0], "relative", 0.2),
        ([1.0, math.nan], [2.0, math.nan], "relative", 0.5),
        ([1.0, 0.0], [1.0, math.nan], "relative", math.inf),
        ([1.0, math.nan], [1.0, 1.0], "relative", math.inf),
        ([[1.0, 2.0]], [1.0, 2.0], "relative", math.inf),
        ([0.1], [0.0], "relative", math.inf),
        ([1, 2, 3, 3], [1, 2, 3, 4], "share", 0.25),
        (["a", "b"], ["a", "c"], "share", 0.5),
        (np.uint8([0]), np.uint8([255]), "levels", 255),
    ],
)
def test_differences_are_found(ours: Any, official: Any, kind: str, difference: float) -> None:
    """What the tests above rest on."""
    with np.errstate(divide="ignore"):
        assert Comparison("", ours, official, 0, kind).difference() == pytest.approx(difference)


def test_unknown_files_are_unknown() -> None:
    assert case_of(Path("new_function_0.npz")) is None
    assert case_of(Path("sinkhorn_17.npz")) is not None
