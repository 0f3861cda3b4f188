"""Where the known data sets keep their files: one arrangement of images and labels per layout.

An arrangement is a folder of images and a template for the label that belongs to an image. Everything else
(search, names, pairing, orphans) is the same for all layouts. No image and no label is opened here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from acclimate.data.releases import read_split
from acclimate.errors import UserError
from acclimate.files import expanded
from acclimate.printable import is_plain
from acclimate.recipe import Folder

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
LABEL_SUFFIXES = (".png", ".PNG", ".bmp", ".tif", ".tiff")
"""Lossless formats; JPEG alters ids."""


@dataclass(frozen=True)
class Sample:
    """One image and, in a labelled set, its label."""

    name: str
    """Path below the image folder without extension, parts separated by ``/``; unique in its set."""
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Arrangement:
    """How one set lies on disk."""

    images: Path
    """Folder that is searched, with all its sub-folders, for images."""
    base: Path
    """Folder that the label template is relative to."""
    labels: str
    """Template of the label path with ``{name}``, ``{parent}`` and ``{stem}``; without a suffix, any of
    `LABEL_SUFFIXES` may follow. Empty: none is known."""
    scheme: str = ""
    """What raw label values mean. Empty: neither the recipe nor the layout says."""
    ending: str = ""
    """What the stems of all images end with; left out of names."""
    split: str = ""
    """The split that these files are. Empty: the layout has none, or all are wanted."""
    only: frozenset[str] | None = None
    """Names of the split's images where a list and no folder says which they are."""
    instead: tuple[str, str] = ("", "")
    """Template of a second kind of label files, and what to do where only those are there."""

    def label_paths(self, name: str) -> list[str]:
        """Where the label of an image may lie, in order of preference. Texts, of which 100,000 are soon made."""
        parent, _, stem = name.rpartition("/")
        values = {"{name}": name, "{parent}": parent or ".", "{stem}": stem}
        path = str(self.base / re.sub(r"\{\w+\}", lambda m: values[m[0]], self.labels))
        return [path] if path.endswith(LABEL_SUFFIXES) else [path + s for s in LABEL_SUFFIXES]

    @property
    def label_folder(self) -> Path:
        """The deepest folder that holds all labels."""
        return self.base / self.labels.partition("{")[0].rpartition("/")[0]


def arrange(folder: Folder, role: str, labelled: bool) -> Arrangement:
    """The arrangement of a recipe's folder; ``role`` (source, target, val, ceiling) selects the usual split.

    The label template is returned in any case, so that labels among the images are not taken for images, but
    only if ``labelled`` must its folder exist.

    Raises:
        UserError: a folder of the layout is missing, or ``split`` or ``labels`` cannot be followed.
    """
    if not folder.path:
        raise UserError(f"data.{role}: no folder is given; set data.{role}.path")
    root = expanded(folder.path)
    if not root.is_dir():
        why = "is a file; unpack it and give the folder" if root.is_file() else "no such folder"
        raise UserError(f"{root}: {why} (data.{role}.path)")
    arrangement = _LAYOUTS[folder.layout](root, folder, role)
    if not arrangement.images.is_dir():
        raise UserError(_missing_folder(root, arrangement.images, folder.layout, role))
    return _with_own_labels(arrangement, root, folder.labels, role, labelled) if folder.labels else arrangement


def find(arrangement: Arrangement, role: str, labelled: bool, limit: int = 0) -> tuple[Sample, ...]:
    """All samples in natural order, or ``limit`` of them, evenly spaced. Labels are looked for only if ``labelled``.

    Raises:
        UserError: no images, images without a label, or two images of one name.
    """
    images = _images(arrangement)
    if not images:
        named = f" whose names end in {arrangement.ending}" if arrangement.ending else ""
        named += f" that split.mat lists for {arrangement.split}" if arrangement.only is not None else ""
        raise UserError(
            f"{arrangement.images}: no images{named} in this folder (data.{role}); "
            f"looked for {', '.join(IMAGE_SUFFIXES)}, sub-folders included"
        )
    _refuse_unnameable(images)
    _refuse_doubles(images)
    if 0 < limit < len(images):
        images = [images[i * len(images) // limit] for i in range(limit)]
    return _paired(images, arrangement, role) if labelled else tuple(images)


def orphan_labels(arrangement: Arrangement) -> list[Path]:
    """Label files of the arrangement that belong to no image, be the image of this split or of another."""
    images = _images(replace(arrangement, only=None))
    own = {path for s in images for path in (str(s.image), *arrangement.label_paths(s.name))}
    template = re.sub(r"\\\{\w+\\\}", ".+", re.escape(str(arrangement.base / arrangement.labels)))
    if not template.endswith(tuple(map(re.escape, LABEL_SUFFIXES))):
        template += f"({'|'.join(map(re.escape, LABEL_SUFFIXES))})"
    files = files_below(arrangement.label_folder)
    return [file for file in files if str(file) not in own and re.fullmatch(template, str(file))]


def _folder(root: Path, folder: Folder, role: str) -> Arrangement:
    _refuse_split(folder, role)
    for images, labels, layout in (("leftImg8bit", "gtFine", "cityscapes"), ("RGB", "GT", "synthia")):
        if not folder.labels and (root / images).is_dir() and (root / labels).is_dir():
            raise UserError(
                f"{root}: holds {images} and {labels}, of which all would be taken for images; "
                f"set data.{role}.layout to {layout}, or data.{role}.path to a folder of images alone"
            )
    images = root / "images"
    labels = "labels/{name}" if (root / "labels").is_dir() else ""
    return Arrangement(images if images.is_dir() else root, root, labels, folder.ids)


def _gta5(root: Path, folder: Folder, role: str) -> Arrangement:
    only = read_split(root / "split.mat", folder.split, role) if folder.split else None
    scheme = folder.ids or "gta5"
    return Arrangement(root / "images", root, "labels/{name}", scheme, split=folder.split, only=only)


def _synthia(root: Path, folder: Folder, role: str) -> Arrangement:
    _refuse_split(folder, role)
    return Arrangement(root / "RGB", root, "GT/LABELS/{name}", folder.ids or "synthia")


def _cityscapes(root: Path, folder: Folder, role: str) -> Arrangement:
    """Train ids lie in files of their own, which the official scripts make of the ids; both state what they hold."""
    root = root.parent if root.name == "leftImg8bit" else root
    split = folder.split or _USUAL_SPLIT[role]
    kind = "gtCoarse" if split == "train_extra" else "gtFine"  # the extra images have coarse labels alone
    ids, train_ids = (f"{kind}/{split}/{{name}}_{kind}_{values}.png" for values in ("labelIds", "labelTrainIds"))
    labels, scheme, instead = ids, folder.ids or "cityscapes", (train_ids, f"set data.{role}.ids to cityscapes-train")
    if folder.ids in ("train", "cityscapes-train"):
        labels, instead = train_ids, (ids, f"leave data.{role}.ids empty")
        scheme = folder.ids if folder.labels else "cityscapes-train"  # whatever the run's own classes are
    return Arrangement(root / "leftImg8bit" / split, root, labels, scheme, "_leftImg8bit", split, instead=instead)


def _camvid(root: Path, folder: Folder, role: str) -> Arrangement:
    """The copy of SegNet with splits and ids, or the original download with neither."""
    stills = root / "701_StillsRaw_full"
    if stills.is_dir():
        _refuse_split(folder, role)
        return Arrangement(stills, root, "LabeledApproved_full/{name}_L", folder.ids or "camvid32")
    split = folder.split or _USUAL_SPLIT[role]
    return Arrangement(root / split, root, f"{split}annot/{{name}}", folder.ids or "camvid", split=split)


_LAYOUTS: dict[str, Callable[[Path, Folder, str], Arrangement]] = {
    "folder": _folder, "gta5": _gta5, "synthia": _synthia, "cityscapes": _cityscapes, "camvid": _camvid,
}  # fmt: skip
_USUAL_SPLIT = {"source": "train", "target": "train", "val": "val", "ceiling": "train"}


def _refuse_split(folder: Folder, role: str) -> None:
    if folder.split:
        raise UserError(
            f"data.{role}.split: {folder.path} in layout {folder.layout} has no splits, found {folder.split!r}; "
            f"leave split empty and point data.{role}.path to a folder with this split's files"
        )


def _missing_folder(root: Path, wanted: Path, layout: str, role: str) -> str:
    present = sorted(p.name for p in wanted.parent.glob("*/")) if wanted.parent.is_dir() else []
    beside = f"{wanted.parent} has {', '.join(present[:10])}" if present else f"{root} has no such folder"
    return (
        f"{wanted}: no such folder, which layout {layout} keeps its images in; {beside}. "
        f"Correct data.{role}.path, .split or .layout"
    )


def _with_own_labels(arrangement: Arrangement, root: Path, labels: str, role: str, labelled: bool) -> Arrangement:
    """The arrangement with labels in a folder or by a template of the user's, below the root or the working folder."""
    key = f"data.{role}.labels"
    unknown = set(re.findall(r"\{.*?\}", labels)) - {"{name}", "{parent}", "{stem}"}
    if unknown:
        raise UserError(
            f"{key}: {', '.join(sorted(unknown))} unknown in {labels!r}; use {{name}}, {{parent}}, {{stem}}"
        )
    if labels.lower().endswith((".jpg", ".jpeg", ".webp")):
        raise UserError(f"{key}: {labels!r}: lossy formats alter label values; save the labels as PNG")
    template = expanded(labels).as_posix() + ("" if "{" in labels else "/{name}")
    candidates = [replace(arrangement, base=base, labels=template, instead=("", "")) for base in (root, Path.cwd())]
    for candidate in candidates:
        if not labelled or candidate.label_folder.is_dir():
            return candidate
    tried = dict.fromkeys(str(candidate.label_folder) for candidate in candidates)
    raise UserError(f"{key}: no such folder: {' nor '.join(tried)}")


def _images(arrangement: Arrangement) -> list[Sample]:
    """Images in natural order; label files that lie among them are left out."""
    among = bool(arrangement.labels) and arrangement.images.is_relative_to(arrangement.label_folder)
    skip = arrangement.label_folder if arrangement.labels and not among else None
    found = []
    for path in files_below(arrangement.images, skip):
        name = path.relative_to(arrangement.images).with_suffix("").as_posix()
        if path.suffix.lower() in IMAGE_SUFFIXES and name.endswith(arrangement.ending):
            found.append(Sample(name.removesuffix(arrangement.ending), path))
    labels = {p for s in found for p in arrangement.label_paths(s.name)} if among else set()
    wanted = [
        s for s in found if str(s.image) not in labels and (arrangement.only is None or s.name in arrangement.only)
    ]
    return sorted(wanted, key=lambda s: (natural(s.name), s.image))


def files_below(folder: Path, skip: Path | None = None) -> Iterator[Path]:
    """Files below a folder, links followed; hidden ones and the folder to skip are passed over."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(parent)
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".")
            and Path(parent, f) != skip
            and not Path(here).is_relative_to(os.path.realpath(os.path.join(parent, f)))  # a link back up: no end
        )
        yield from (Path(parent, f) for f in sorted(files) if not f.startswith("."))


def natural(name: str) -> list[str | int]:
    """Sort key by which img2 stands before img10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _refuse_unnameable(images: list[Sample]) -> None:
    """Names are written into records, which are UTF-8."""
    bad = [sample.image for sample in images if not is_plain(sample.name)]
    if bad:
        more = f" (and {len(bad) - 1} more such names)" if len(bad) > 1 else ""
        raise UserError(
            f"{bad[0].parent}: the file name {bad[0].name!r} is not UTF-8, or holds control characters{more}; rename it"
        )


def _refuse_doubles(images: list[Sample]) -> None:
    counts = Counter(sample.name for sample in images)
    doubles = [name for name, count in counts.items() if count > 1]
    if doubles:
        files = [str(sample.image) for sample in images if sample.name == doubles[0]]
        more = f" (and {len(doubles) - 1} more such names)" if len(doubles) > 1 else ""
        raise UserError(f"{' and '.join(files)}: two images of the same name{more}; rename or remove one")


def _paired(images: list[Sample], arrangement: Arrangement, role: str) -> tuple[Sample, ...]:
    if not arrangement.labels:
        raise UserError(
            f"{arrangement.base}: no labels known for data.{role}; put them into {arrangement.base / 'labels'} "
            f"or set data.{role}.labels to their folder or a template such as gt/{{name}}_id.png"
        )
    paired, missing = [], []
    for sample in images:
        label = next((Path(path) for path in arrangement.label_paths(sample.name) if os.path.isfile(path)), None)
        if label is None:
            missing.append(sample)
        paired.append(Sample(sample.name, sample.image, label))
    if missing:
        raise UserError(_missing_labels(missing, images, arrangement, role))
    return tuple(paired)


def _missing_labels(missing: list[Sample], images: list[Sample], arrangement: Arrangement, role: str) -> str:
    examples = ", ".join(str(sample.image) for sample in missing[:3]) + (", …" if len(missing) > 3 else "")
    wanted = arrangement.label_paths(missing[0].name)
    others = f" (or {', '.join(LABEL_SUFFIXES[2:])})" if len(wanted) > 1 else ""
    template, remedy = arrangement.instead
    second = replace(arrangement, labels=template).label_paths(missing[0].name)[0] if template else ""
    if os.path.isfile(second):
        others += f", but there is {os.path.basename(second)}: to use these labels, {remedy}"
    return (
        f"data.{role}: {len(missing)} of {len(images)} images have no label{_bare_folders(missing, images)}: "
        f"{examples}; for the first looked for {wanted[0]}{others}. Add the labels, remove the images, or set "
        f"data.{role}.labels to a folder or a template"
    )


def _bare_folders(missing: list[Sample], images: list[Sample]) -> str:
    """The sub-folders, such as cities, of which no image has a label while images of others have."""
    lack, have = (Counter(sample.name.rpartition("/")[0] for sample in samples) for samples in (missing, images))
    bare = [folder for folder in lack if lack[folder] == have[folder]]
    if not bare or len(bare) == len(have):
        return ""
    return f", among them all of {', '.join(bare[:10])}" + (f" and {len(bare) - 10} more" if len(bare) > 10 else "")
