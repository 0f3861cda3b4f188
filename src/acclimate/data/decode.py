"""Image and label files → arrays. Whatever is wrong with a file becomes a `UserError` that names it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from acclimate.errors import UserError

# What Pillow's decoders raise on broken files.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, AttributeError, MemoryError,
    AssertionError, NotImplementedError, RecursionError, struct.error, zlib.error,
)  # fmt: skip

_LAST_CHUNK = b"\0\0\0\0IEND\xaeB\x60\x82"  # of every PNG file


def read_image(path: str | Path) -> np.ndarray:
    """An image file of any mode as uint8 HWC RGB, turned upright as its EXIF orientation says.

    16-bit images keep their upper 8 bits; transparency is dropped.

    Raises:
        UserError: the file is missing, empty, truncated or not an image.
    """
    return np.array(read_picture(path))


def read_picture(path: str | Path, rows: int | None = None) -> Image.Image:
    """The same as a picture of Pillow's; with ``rows`` no more than so many from the top need hold anything.

    A PNG file is decoded no further than that; then other damage further down than a missing end is not noticed.

    Raises:
        UserError: as `read_image`.
    """
    path = Path(path)
    with _opened(path) as file:
        if file.mode == "F":
            raise UserError(f"{path}: floating-point pixels have no known range; save the image with 8 bits")
        turned = _orientation(file)
        if rows is not None and not turned:
            _decode_top(file, rows)
        image = ImageOps.exif_transpose(file) if turned else file
        if image.mode.startswith("I"):
            grey_HW = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
            return Image.fromarray(np.repeat(grey_HW[..., None], 3, axis=2))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of the upright image, from the header alone; raises as `read_image` does."""
    with _opened(Path(path)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_label(path: Path, by_colour: bool, rows: int | None = None) -> np.ndarray:
    """Raw values of a label file: ids HW, or colours uint8 HW3.

    Palette files give their indices, or their palette's colours if ``by_colour``. Of 16-bit files with several
    channels (SYNTHIA: class and instance) the first channel is the id, all 16 bits of it. A file that does not
    hold what is asked for is returned as it is. ``rows``: as in `read_picture`.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        rawmode = str(image.tile[0].args) if image.format == "PNG" and image.tile else ""
        if not by_colour and rawmode in ("LA;16B", "RGB;16B", "RGBA;16B"):
            return _first_channel_16(path, image, rawmode)
        if rows is not None:
            _decode_top(image, rows)
        if rawmode in ("L;2", "L;4"):  # Pillow stretches these to 0 … 255
            return np.asarray(image) // (85 if rawmode == "L;2" else 17)
        if image.mode == "1":
            return np.array(image, np.uint8)
        if image.mode == "F":
            raise UserError(f"{path}: floating-point pixels cannot be labels; save whole numbers with 8 or 16 bits")
        if image.mode in ("P", "PA") and by_colour:
            return np.array(image.convert("RGB"))
        raw = np.array(image)
        return raw[..., 0] if image.mode in ("LA", "PA") else raw[..., :3] if raw.ndim == 3 else raw


def _decode_top(image: ImageFile.ImageFile, rows: int) -> None:
    """Decode so many rows of a plain PNG from the top; leaves other files alone, and those that were cut off."""
    plain = image.format == "PNG" and len(image.tile) == 1 and "interlace" not in image.info
    if plain and rows < image.height and not getattr(image, "is_animated", False) and _ends_well(image):
        image.tile = [image.tile[0]._replace(extents=(0, 0, image.width, max(rows, 1)))]
        image.load()


def _ends_well(png: ImageFile.ImageFile) -> bool:
    """Whether the last chunk is there, as in most files that are damaged at all it is not."""
    assert png.fp is not None
    here = png.fp.tell()
    png.fp.seek(-len(_LAST_CHUNK), os.SEEK_END)
    whole = png.fp.read() == _LAST_CHUNK
    png.fp.seek(here)
    return whole


def _first_channel_16(path: Path, image: ImageFile.ImageFile, rawmode: str) -> np.ndarray:
    """uint16 HW: Pillow drops the lower bytes of such files, so ask its decoder for the bytes by other raw modes.

    16-bit grey and alpha are the four bytes of an 8-bit RGBA pixel; 16-bit RGB read as if its bytes were
    swapped yields the lower ones.
    """
    if rawmode == "LA;16B":
        image.tile = [image.tile[0]._replace(args="RGBA")]
        high_low = np.asarray(image)
        return high_low[..., 0].astype(np.uint16) << 8 | high_low[..., 1]
    high_HW = np.asarray(image)[..., 0].astype(np.uint16)
    with _opened(path) as again:
        again.tile = [again.tile[0]._replace(args=rawmode.replace("16B", "16L"))]
        return high_HW << 8 | np.asarray(again)[..., 0]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 2 … 8, or 0 for an upright image; 5 and above swap height and width.

    A PNG is asked only for what stands before its pixels, since Pillow would decode it all to look further; a TIFF
    not at all, since Pillow turns it unasked.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 0
    orientation = image.getexif().get(0x0112, 0)
    return orientation if orientation in range(2, 9) else 0


@contextmanager
def _opened(path: Path) -> Generator[ImageFile.ImageFile]:
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UserError(f"{path}: is no file; remove it from its folder")
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        if os.path.islink(path):
            raise UserError(f"{path}: a link to {os.readlink(path)}, which is not there; mend or remove it") from None
        raise UserError(f"{path}: no such file; restore it, or start a run without it") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; correct the file's permissions") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: says to have more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which would fill the "
            "memory; scale it down, or remove it from its folder"
        ) from None
    except _BROKEN as error:
        raise UserError(f"{path}: {_what(path, error)}; copy or download it again, or remove it") from None


def _what(path: Path, error: Exception) -> str:
    """What is wrong with a file that Pillow does not decode."""
    try:
        if os.path.getsize(path) == 0:
            return "is empty (0 bytes)"
    except OSError:
        return "cannot be reached"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or damaged at its beginning"
    return f"cannot be decoded ({str(error).partition(chr(10))[0] or type(error).__name__})"
