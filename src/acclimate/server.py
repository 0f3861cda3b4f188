"""Files for the Cityscapes test server: label ids in single-channel PNGs of 2048x1024 pixels.

The server's script (``evalPixelLevelSemanticLabeling.py`` of cityscapesscripts) looks through all folders for exactly
one ``CITY_SEQUENCE_FRAME*.png`` per image and compares its values, which are label ids and not train ids.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from acclimate import pictures
from acclimate.data.decode import read_size
from acclimate.errors import UserError
from acclimate.files import expanded
from acclimate.jobs import Job, find_images, listing, refuse_conflicts
from acclimate.label_tables import CITYSCAPES, ID_SCHEMES
from acclimate.labels import LabelSpace
from acclimate.prediction import Found, Model, load, write_masks

SIZE = (1024, 2048)
"""Height and width in pixels of all Cityscapes images."""
TEST_IMAGES = 1525
"""Images in the test split; the server wants a file for each."""

_NAME = re.compile(r"([^_/]+_[0-9]{6}_[0-9]{6})_leftImg8bit")


def write_server_files(
    model: Model | str | Path, data: str | Path, out: str | Path, overwrite: bool = False, batch: int = 1
) -> list[Path]:
    """Write ``CITY_SEQUENCE_FRAME_labelIds.png`` for every image.

    Args:
        model: from `load`, or what `load` takes; its classes are Cityscapes classes.
        data: the root of Cityscapes, of which the test split is taken, or the folder of any split.
        out: the folder to pack and upload.
        overwrite: make anew what is there already, which else stays as it is.
        batch: how many images go through the network together.

    Returns:
        The files.

    Raises:
        UserError: before anything is written: another model's classes, images of other names or sizes, other PNGs in
            ``out``. Afterwards: images that could not be read.
    """
    out = Path(out)
    jobs = _plan(_split_folder(expanded(data)), out)
    model = model if isinstance(model, Model) else load(model)
    id_K = label_ids(model.space)

    def write(job: Job, found: Found) -> None:
        pictures.save(id_K[found.label_HW], job.mask)

    return write_masks(model, jobs, write, overwrite, batch)


def label_ids(space: LabelSpace) -> np.ndarray:
    """uint8 (K,): the Cityscapes label id of each class, such as 7 for road; raises `UserError` for other classes."""
    foreign = [name for name in space.classes if name not in CITYSCAPES]
    if foreign:
        raise UserError(
            f"label space {space.name}: the Cityscapes server does not know {', '.join(foreign)}; give a model whose "
            "classes are Cityscapes classes, such as those of cityscapes19"
        )
    ids = {name: i for i, name in ID_SCHEMES["cityscapes"].items()}
    return np.array([ids[name] for name in space.classes], np.uint8)


def _split_folder(data: Path) -> Path:
    """The folder of images: the test split of a root, or the folder itself."""
    root = data / "leftImg8bit" if (data / "leftImg8bit").is_dir() else data
    if not any((root / split).is_dir() for split in ("train", "val", "test")):
        return root
    if not (root / "test").is_dir():
        raise UserError(f"{root / 'test'}: no such folder; download the test images, or give the folder of a split")
    return root / "test"


def _plan(folder: Path, out: Path) -> list[Job]:
    """What is to be written, after everything that would go wrong has been looked for."""
    images = [image for image, _ in find_images([folder], out)]
    misnamed = [str(image) for image in images if not _NAME.fullmatch(image.stem)]
    if misnamed:
        raise UserError(listing(
            "the Cityscapes server only knows images named CITY_SEQUENCE_FRAME_leftImg8bit.png; give the test split "
            "as downloaded", misnamed
        ))  # fmt: skip
    sizes = {image: read_size(image) for image in images}
    missized = [f"{image}: {w}x{h}" for image, (h, w) in sizes.items() if (h, w) != SIZE]
    if missized:
        raise UserError(
            listing("the Cityscapes server compares at 2048x1024 pixels; give the images unscaled", missized)
        )
    jobs = [Job(image, out / f"{image.stem.removesuffix('_leftImg8bit')}_labelIds.png") for image in images]
    refuse_conflicts(jobs, out)
    strays = sorted({str(path) for path in out.rglob("*.png")} - {str(job.mask) for job in jobs})
    if strays:
        raise UserError(
            listing(f"the server would take these files in {out} for results, too; choose another --out", strays)
        )
    return jobs
