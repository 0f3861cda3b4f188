"""Target images that cannot be read: left out at the start, stood in for later (``data.on_bad_image: skip``).

Which ones are left out is settled when a run starts, and kept in its folder: a run that is continued has the same
images. One that breaks later is stood in for by the next that can be read, wherever it is due, so that an item is
still a function of its key and of the files alone, whichever process prepares it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acclimate import recipe
from acclimate.data.datasets import ImageSet, T, open_images
from acclimate.errors import UserError
from acclimate.files import read_json, write_json

log = logging.getLogger(__name__)

LEFT_OUT, REPLACED = "left-out.json", "replaced.txt"
"""Files in the run folder: names left out from the start, and names that broke later, each with the reason."""


def allowed(images: int) -> int:
    """How many images of a set may be broken: one in 20, and one at least."""
    return max(1, images // 20)


def leave_out(names: Sequence[str], run: Path) -> None:
    """Settle which images a run leaves out, unless that is settled."""
    if not (run / LEFT_OUT).exists():
        write_json(run / LEFT_OUT, list(names))


def open_target(data: recipe.Data, run: Path) -> ImageSet:
    """The target images of a run; with ``on_bad_image: skip`` without those that `leave_out` has put on record."""
    images = open_images(data.target, "target")
    if data.on_bad_image == "stop":
        return images
    left_out = set(read_json(run / LEFT_OUT))
    return ForgivingSet(tuple(s for s in images.samples if s.name not in left_out), run / REPLACED)


@dataclass(frozen=True)
class ForgivingSet(ImageSet):
    """Images of which a few may break: the next that can be read takes their place."""

    ledger: Path
    """Where those that broke are put on record, by all processes of the run."""

    def image(self, index: int) -> np.ndarray:
        return self.read(index, super().image)

    def read(self, index: int, task: Callable[[int], T]) -> T:
        """The task done with the index or, if that image is broken, the next index (around the end) that is not.

        Raises:
            UserError: more are broken than `allowed`.
        """
        for step in range(allowed(len(self)) + 1):
            place = (index + step) % len(self)
            try:
                return task(place)
            except UserError as error:
                self._note(place, error)
        raise AssertionError("more are on record than allowed")

    def _note(self, index: int, error: UserError) -> None:
        """Put a broken image on record, once, and stop where there are too many."""
        name, most = self.samples[index].name, allowed(len(self))
        known = self._known()
        if name not in known:
            known.add(name)
            with self.ledger.open("a", encoding="utf-8") as file:
                file.write(f"{name}\t{' '.join(str(error).split())}\n")
            log.warning("warning: %s; the next image stands in for it (%d of at most %d)", error, len(known), most)
        if len(known) > most:
            raise UserError(
                f"{error}. That makes {len(known)} of {len(self)} target images that broke while the run was going on, "
                f"more than data.on_bad_image: skip bears with ({most}); {self.ledger} lists them. Restore them, "
                f"delete {self.ledger}, and go on"
            )

    def _known(self) -> set[str]:
        if not self.ledger.exists():
            return set()
        return {line.partition("\t")[0] for line in self.ledger.read_text(encoding="utf-8").splitlines()}
