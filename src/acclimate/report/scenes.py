"""The panels of pictures: the slider, what rectification changed, where the model is sure, and where least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from acclimate.errors import UserError
from acclimate.labels import IGNORE, LabelSpace
from acclimate.report import embed
from acclimate.report.looks import (
    Correction,
    Photo,
    Seen,
    corrections,
    least_sure,
    open_photos,
    see_all,
)
from acclimate.report.record import Record

SURE, UNSURE = 0.9, 0.6
"""Probabilities from which on a model counts as sure, and below which as unsure."""


def panels(record: Record, device: torch.device) -> dict[str, Any]:
    """All panels of pictures of a run; where its images are gone, ``missing`` says so instead."""
    try:
        photos = open_photos(record)
        doubtful, searched = least_sure(record, device)
    except UserError as error:
        return {"missing": str(error)}
    models = [record.run.model(row["name"]) for row in record.rows]
    seen = dict(zip((row["name"] for row in record.rows), see_all(models, photos, device), strict=True))
    layers = [(row["name"], row["title"], seen[row["name"]]) for row in record.rows]
    left = record.base["name"] if record.base else record.rows[0]["name"]
    # Where the source-only model itself was chosen, it stands beside what the last stage made of it.
    stages = [row["name"] for row in record.rows if row["name"] != "ceiling"]
    right = record.adapted["name"] if record.adapted["name"] != left else stages[-1]
    return {
        "legend": legend(record.space),
        "slider": slider(photos, layers, record.space, left, right),
        "corrections": _corrections(photos, corrections(record, photos, device), record.space),
        "certainty": _certainty(photos, seen[record.adapted["name"]]),
        "unsure": {"searched": searched, "images": [_unsure(*one, record.space) for one in doubtful]},
        "ramp": embed.ramp(),
    }


def compared(records: Sequence[Record], device: torch.device) -> dict[str, Any]:
    """One slider over the first run's images, with what the model of each run sees in them."""
    first = records[0]
    try:
        photos = open_photos(first)
    except UserError as error:
        return {"missing": str(error)}
    models = [record.run.model(record.adapted["name"]) for record in records]
    seen = see_all(models, photos, device)
    layers = [(f"run{number}", record.name, found)
              for number, (record, found) in enumerate(zip(records, seen, strict=True), start=1)]  # fmt: skip
    return {
        "legend": legend(first.space),
        "slider": slider(photos, layers, first.space, "run1", "run2"),
    }


def slider(
    photos: Sequence[Photo],
    layers: Sequence[tuple[str, str, Sequence[Seen]]],
    space: LabelSpace,
    left: str,
    right: str,
) -> dict[str, Any]:
    """Photos, each with one label map per layer (key, title, what was seen), the labels last if there are any."""
    options = [("photo", "photo alone"), *((key, title) for key, title, _ in layers)]
    if photos[0].truth_HW is not None:
        options.append(("truth", "labels"))
    scenes = []
    for number, photo in enumerate(photos):
        maps = [(key, title, seen[number].label_HW) for key, title, seen in layers]
        if photo.truth_HW is not None:
            maps.append(("truth", "labels", photo.truth_HW))
        drawn = [{"key": key, "title": title, "uri": embed.labels(label_HW, space)} for key, title, label_HW in maps]
        scenes.append({**_base(photo), "layers": drawn})
    return {"options": options, "left": left, "right": right, "scenes": scenes}


def legend(space: LabelSpace) -> list[tuple[str, str]]:
    """Names and colours of the classes."""
    return [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in zip(space.classes, space.colours, strict=True)]


def _base(photo: Photo) -> dict[str, Any]:
    height, width = photo.hw
    return {"name": photo.name, "photo": embed.photo(photo.small()), "width": width, "height": height}


def _corrections(
    photos: Sequence[Photo], found: Sequence[Correction] | None, space: LabelSpace
) -> dict[str, Any] | None:
    if found is None:
        return None
    images, changed, righted, spoiled, counted = [], 0, 0, 0, 0
    for photo, (before_HW, after_HW) in zip(photos, found, strict=True):
        differs_HW = before_HW != after_HW
        images.append({
            **_base(photo),
            "before": embed.labels(before_HW, space),
            "after": embed.labels(after_HW, space),
            "changes": embed.changes(before_HW, after_HW, photo.truth_HW, space),
            "share": float(differs_HW.mean()),
        })  # fmt: skip
        if photo.truth_HW is not None:
            known_HW = photo.truth_HW != IGNORE
            counted += int(known_HW.sum())
            changed += int((differs_HW & known_HW).sum())
            righted += int((differs_HW & (after_HW == photo.truth_HW)).sum())
            spoiled += int((differs_HW & (before_HW == photo.truth_HW)).sum())
    measured = None
    if counted:
        shares = (righted / changed, spoiled / changed, 1 - (righted + spoiled) / changed) if changed else None
        measured = {"changed": changed / counted, "of": shares}
    return {"images": images, "measured": measured,
            "colours": [_hex(rgb) for rgb in (embed.RIGHT, embed.SPOILED, embed.STILL_WRONG)]}  # fmt: skip


def _certainty(photos: Sequence[Photo], seen: Sequence[Seen]) -> dict[str, Any]:
    images = [{**_base(photo), "heat": embed.heat(found.entropy_HW)}
              for photo, found in zip(photos, seen, strict=True)]  # fmt: skip
    confidence = np.concatenate([found.confidence_HW.ravel() for found in seen])
    right = None
    if photos[0].truth_HW is not None:
        truth = np.concatenate([photo.truth_HW.ravel() for photo in photos if photo.truth_HW is not None])
        found = np.concatenate([one.label_HW.ravel() for one in seen])
        right = np.where(truth == IGNORE, np.nan, found == truth)
    parts = (
        (f"sure (probability {SURE:g} or more)", confidence >= SURE),
        ("in between", (confidence < SURE) & (confidence >= UNSURE)),
        (f"unsure (below {UNSURE:g})", confidence < UNSURE),
    )
    rows = [[name, f"{100 * chosen.mean():.0f} %", *_right(right, chosen)] for name, chosen in parts]
    return {"images": images, "header": ["pixels", "share", *(["of them right"] if right is not None else [])],
            "rows": rows}  # fmt: skip


def _right(right: np.ndarray | None, chosen: np.ndarray) -> list[str]:
    if right is None:
        return []
    counted = right[chosen & ~np.isnan(right)]
    return [f"{100 * counted.mean():.0f} %" if counted.size else "–"]


def _unsure(photo: Photo, seen: Seen, doubt: float, space: LabelSpace) -> dict[str, Any]:
    return {**_base(photo), "seen": embed.labels(seen.label_HW, space), "heat": embed.heat(seen.entropy_HW),
            "doubt": f"{doubt:.2f}"}  # fmt: skip


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
