"""The store of soft pseudo labels: one small file per image, and a manifest once all are written.

Probabilities are kept as uint8 (p · 255, rounded), compressed, in the network's cells: about 0.2 MB
for a Cityscapes image. Files are written to a temporary name first, and the manifest comes last, so a
store that opens is whole; any number of processes may write images side by side.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from acclimate.data.geometry import Grid
from acclimate.errors import UserError
from acclimate.files import atomic, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels of a list of images, each over the whole image at scale 1."""

    folder: Path
    names: tuple[str, ...]
    """Of the images, in their order."""
    classes: tuple[str, ...]
    """The K classes, in the order of the channels."""
    grid: Grid
    """Where the cells lie on the scaled image."""
    width: int
    """Width in pixels of the scaled images (``data.width``)."""

    @classmethod
    def open(cls, folder: Path, names: Sequence[str]) -> SoftLabels:
        """The finished store in ``folder``, which must be that of the images ``names``.

        Raises:
            UserError: the store is unfinished, damaged or belongs to other images.
        """
        manifest = folder / MANIFEST
        remedy = f"delete the folder {folder} and run again to have it made anew"
        try:
            known = json.loads(manifest.read_text(encoding="utf-8"))
            grid = Grid(**known["grid"])
            store = cls(folder, tuple(known["names"]), tuple(known["classes"]), grid, known["width"])
        except FileNotFoundError:
            raise UserError(f"{manifest}: not found, so the soft labels were not finished; {remedy}") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{manifest}: not a manifest of soft labels; {remedy}") from None
        if store.names != tuple(names):
            raise UserError(
                f"{manifest}: these soft labels belong to other images ({len(store.names)} there, {len(names)} here); "
                f"give the same target images as before, or {remedy}"
            )
        return store

    def path(self, index: int) -> Path:
        """The file of one image."""
        return self.folder / f"{index:06d}.npz"

    def write(self, index: int, soft_Khw: np.ndarray) -> None:
        """Store the probabilities (0 … 1, float, in the store's cells) of one image."""
        if soft_Khw.shape[0] != len(self.classes):
            raise ValueError(f"expected {len(self.classes)} classes, found an array of shape {soft_Khw.shape}")
        quantised_Khw = np.rint(np.clip(soft_Khw, 0, 1) * 255).astype(np.uint8)
        with atomic(self.path(index)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, soft_Khw=quantised_Khw)

    def read(self, index: int) -> np.ndarray:
        """Uint8 (K, h, w): the probabilities of one image times 255; they sum to 255 up to rounding.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            with np.load(self.path(index), allow_pickle=False) as stored:
                return stored["soft_Khw"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{self.path(index)}: the soft labels of {self.names[index]} cannot be read ({error}); "
                f"delete the folder {self.folder} and run again to have it made anew"
            ) from None

    def finish(self) -> None:
        """Declare the store whole: called once, after the last image."""
        manifest = {"names": self.names, "classes": self.classes, "grid": asdict(self.grid), "width": self.width}
        write_json(self.folder / MANIFEST, manifest)
