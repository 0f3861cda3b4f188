"""Mutated files, chosen by what code they reach: readers give a value or a `UserError`, and nothing else.

A small fuzzer of the usual kind. It changes valid files at random, watches which lines of the readers run, keeps
what reached new ones, and changes those further. The number of attempts is fixed and so is the seed: a finding repeats.
``FUZZ=50 make test`` tries 50 times as much.
"""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import torch
from bad_inputs import NETWORK, SPACE
from miniature import png16
from PIL import Image

from acclimate import recipe
from acclimate.data.decode import read_image, read_label, read_size
from acclimate.errors import UserError
from acclimate.labels import read_label_map
from acclimate.networks.metadata import describe
from acclimate.networks.pickled import read_pickled
from acclimate.networks.weights import load_model, write
from acclimate.printable import printable

WATCHED = ("/acclimate/", "/PIL/", "/yaml/")
Lines = set[tuple[CodeType, int]]


@contextmanager
def watching(lines: Lines) -> Iterator[None]:
    """Gather the lines of the readers that run within the block."""

    def enter(frame: FrameType, event: str, _: Any) -> Callable | None:
        return line if any(part in frame.f_code.co_filename for part in WATCHED) else None

    def line(frame: FrameType, event: str, _: Any) -> Callable:
        lines.add((frame.f_code, frame.f_lineno))
        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def mutated(content: bytes, others: list[bytes], words: list[bytes], rng: random.Random) -> bytes:
    """The content after one to four changes of bytes, of lengths, of known words, or with a part of another file."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 2, 4, 16, 200)))
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:to] = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(to - at))
            case 2:
                del data[at:to]
            case 3:
                data[at:at] = data[at:to] * rng.choice((1, 2, 30))
            case 4:
                del data[at:]
            case 5:
                other = rng.choice(others)
                data[at:to] = other[at : at + rng.randrange(1, 64)]
            case _:
                data[at:to] = rng.choice(words)
    return bytes(data[: 1 << 16])


def fuzz(read: Callable[[Path], object], path: Path, seeds: list[bytes], words: list[bytes], attempts: int) -> None:
    """Raise AssertionError with the file's content where the reader ends in anything but a value or a `UserError`."""
    effort = int(os.environ.get("FUZZ", "1"))
    rng, corpus, reached = random.Random(effort), list(seeds), Lines()
    for attempt in range(effort * attempts + len(seeds)):
        parent = corpus[-1] if rng.random() < 0.3 else rng.choice(corpus)
        content = seeds[attempt] if attempt < len(seeds) else mutated(parent, corpus, words, rng)
        path.write_bytes(content)
        lines = Lines()
        try:
            with watching(lines):
                read(path)
        except UserError as error:
            assert printable(str(error)).encode(), "can be shown"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; the file: {content[:2000]!r}") from error
        if not lines <= reached:
            reached |= lines
            corpus.append(content)
    assert len(corpus) > 2 * len(seeds), "the search finds new ground"


def encoded(kind: str, mode: str = "RGB", **how: Any) -> bytes:
    """A small image file."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **how)
    return file.getvalue()


def pictures(folder: Path) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3)).astype(np.uint16)
    kinds = [encoded("PNG", mode) for mode in ("RGB", "P", "1", "L", "RGBA", "LA")]
    kinds += [encoded("JPEG"), encoded("JPEG", exif=exif), encoded("JPEG", "CMYK"), encoded("BMP"), encoded("PPM")]
    kinds += [encoded("WEBP"), encoded("TIFF"), encoded("TIFF", "L", compression="tiff_lzw"), encoded("GIF")]
    return [*kinds, png16(folder / "deep.png", deep, colour_type=2).read_bytes()]


IMAGE_WORDS = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"Exif\0\0",
    b"II*\0", b"\xff\xc0", b"\xff\xda", b"acTL", b"iCCP", b"RIFF",
]  # fmt: skip
YAML_WORDS = [
    b": ", b"\n", b"- ", b"[", b"]", b"{", b"}", b"!!int ", b"!!python/object:x.y ", b"!!binary ", b"!!set ",
    b"!!omap ", b"&a ", b"*a", b"<<: ", b"'", b'"', b"|\n", b"? ", b"#", b"---\n", b"%YAML 1.2\n", b"9" * 30,
    b"2001-99-99", b"0x", b"1e999", b".nan", b"null", b"~", b"\xff", b"\0", b"\xc2\x85", b"data", b"seed",
    b"other", b"ignore", b"colours", b"=", b"!!timestamp ", b"!!float ", b"!!bool ",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)  # headers that lie cost little


@pytest.mark.filterwarnings("ignore")
def test_images(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        height, width = read_size(path)
        image_HWC = read_image(path)
        assert image_HWC.shape == (height, width, 3) and image_HWC.dtype == np.uint8

    fuzz(read, tmp_path / "x.png", pictures(tmp_path), IMAGE_WORDS, 500)


@pytest.mark.filterwarnings("ignore")
def test_labels(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        assert read_label(path, by_colour=False).ndim in (2, 3)
        assert read_label(path, by_colour=True).ndim in (2, 3)

    fuzz(read, tmp_path / "x.png", pictures(tmp_path), IMAGE_WORDS, 400)


def test_recipes(tmp_path: Path) -> None:
    seeds = [recipe.read(name)[0].encode() for name in recipe.names()]
    seeds += [b"seed: 1\ndata: {width: 64, crop: [48, 64]}\n", recipe.to_yaml(recipe.Recipe()).encode()[:900]]
    fuzz(recipe.load, tmp_path / "x.yaml", seeds, YAML_WORDS, 120)


def test_label_maps(tmp_path: Path) -> None:
    seeds = [
        b"0: road\n1: car\nother: ignore\ncolours:\n  road: '#804080'\n",
        b"'#804080': road\n'#000000': ignore\n'#010101': x\n",
    ]
    fuzz(read_label_map, tmp_path / "x.yaml", seeds, YAML_WORDS, 400)


def test_overrides(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        recipe.load("laptop", [path.read_bytes().decode(errors="surrogateescape")])

    seeds = [b"selflabel.iterations=500", b"data.crop=[64, 64]", b"data.target={path: x}", b"method=official"]
    fuzz(read, tmp_path / "x", seeds, YAML_WORDS, 60)


@pytest.mark.filterwarnings("ignore")
def test_models(tmp_path: Path) -> None:
    told = describe(SPACE, recipe.to_dict(NETWORK), {"width": 64})
    write(tmp_path / "seed", {"w": torch.zeros(2, 3), "n": torch.zeros(1).half()}, told)
    words = [
        b'"shape":[-1]',
        b"[" * 9,
        b"18446744073709551615",
        b"1e999",
        b"NaN",
        b"F64",
        b"{}",
        b"null",
        b'\\"',
        b"\\\\u0000",
    ]
    fuzz(load_model, tmp_path / "x.safetensors", [(tmp_path / "seed").read_bytes()], words, 200)


@pytest.mark.filterwarnings("ignore")
def test_pickles(tmp_path: Path) -> None:
    seeds = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"w": torch.ones(2), "n": np.float64(1)}, file, _use_new_zipfile_serialization=new)
        seeds.append(file.getvalue())
    fuzz(read_pickled, tmp_path / "x.pkl", seeds, [b"cos\nsystem\n", b"R", b"\x93", b"("], 150)
