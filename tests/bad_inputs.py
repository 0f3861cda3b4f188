"""The table of bad inputs: what is wrong, the command that meets it, and what it must answer.

`test_hostile.py` runs it, and checks that `docs/bad-input.md` is what

    PYTHONPATH=src:tests python tests/bad_inputs.py

writes: the table with the message of each. Every case starts from a folder in which all is well (`good_folder`).
"""

from __future__ import annotations

import builtins
import html
import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from miniature import png16
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from acclimate import cli, pipeline, prediction, recipe
from acclimate.labels import LabelSpace
from acclimate.networks import build
from acclimate.networks.weights import save_model

SIZE = (64, 48)
DOCUMENT = Path(__file__).parent.parent / "docs" / "bad-input.md"
WORKS = 0
REFUSED = 2
SPACE = LabelSpace("rgb", ("red", "green", "blue"), ((220, 40, 40), (40, 200, 60), (50, 80, 230)))
NETWORK = recipe.Network(backbone="test_resnet", weights="none", channels=8)
Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One bad input."""

    group: str
    what: str
    """What is wrong, for people."""
    spoil: Spoil
    """Makes it so in a good folder."""
    words: Callable[[Path], list[str]]
    """The command."""
    says: tuple[str, ...] = ()
    """What the message must contain; nothing: it works."""
    note: str = ""
    """How it works, or what is kept, for people."""
    alters: str = ""
    """Pattern of new files that the command may leave although it is refused."""

    @property
    def code(self) -> int:
        return REFUSED if self.says else WORKS


# --- a folder in which all is well ---


def good_folder(folder: Path) -> Path:
    """Three labelled source images, three target images, a model of three classes, a label map and a recipe."""
    for number, name in enumerate("abc"):
        picture(folder / f"source/images/{name}.png", number)
        label(folder / f"source/labels/{name}.png")
        picture(folder / f"target/{name}.png", number + 9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(NETWORK, len(SPACE))
    save_model(folder / "model.safetensors", network, SPACE, NETWORK, {"width": 64})
    (folder / "map.yaml").write_text("0: red\n1: green\n2: blue\nother: ignore\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text("data: {width: 64, crop: [48, 64]}\n", encoding="utf-8")
    return folder


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    return path


def label(path: Path, value: int = 0, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path)
    return path


# --- commands ---

_SMALL = [f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill")]


def _data(folder: Path) -> list[str]:
    return ["--source", str(folder / "source"), "--target", str(folder / "target"), "--classes", "streets"]


def check(*words: str) -> Callable[[Path], list[str]]:
    return lambda d: ["check", *_SMALL, *(w.format(d=d) for w in words), *_data(d)]


def adapt(*words: str) -> Callable[[Path], list[str]]:
    return lambda d: ["adapt", *_SMALL, *_data(d), *(w.format(d=d) for w in words), "--out", str(d / "run")]


def command(*words: str) -> Callable[[Path], list[str]]:
    return lambda d: [word.format(d=d) for word in words]


PREDICT = command("predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/masks")

# --- ways to spoil ---


def nothing(folder: Path) -> None:
    pass


def every(*spoils: Spoil) -> Spoil:
    return lambda d: [spoil(d) for spoil in spoils]


def truncate(name: str, share: float = 0.5) -> Spoil:
    return lambda d: (d / name).write_bytes((d / name).read_bytes()[: int((d / name).stat().st_size * share)])


def write(name: str, content: bytes | str) -> Spoil:
    raw = content.encode() if isinstance(content, str) else content

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)

    return spoil


def as_kind(name: str, kind: str, **how: Any) -> Spoil:
    """The file of this name as an image of another kind."""

    def spoil(folder: Path) -> None:
        path = folder / name
        image = Image.open(path).convert("RGB")
        if how.pop("exif", None):
            exif = Image.Exif()
            exif[0x0112] = 6
            how["exif"] = exif
        mode = how.pop("mode", "RGB")
        frames = {"append_images": [image.rotate(90).convert(mode)], "save_all": True} if how.pop("moves", 0) else {}
        image.convert(mode).save(path.with_suffix(f".{kind}"), **how, **frames)
        if path.suffix != f".{kind}":
            path.unlink()

    return spoil


def png_header(width: int, height: int) -> bytes:
    """A whole, tiny PNG that says to be as large as this."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def depth16(name: str) -> Spoil:
    values = np.random.default_rng(0).integers(0, 65536, (SIZE[1], SIZE[0], 3)).astype(np.uint16)
    return lambda d: png16(d / name, values, colour_type=2)


def array(name: str, values: np.ndarray) -> Spoil:
    return lambda d: Image.fromarray(values).save(d / name)


def relabel(values: np.ndarray | int) -> Spoil:
    """All source labels."""
    full = np.broadcast_to(np.asarray(values), SIZE[::-1]).astype(np.uint8)
    return lambda d: [array(f"source/labels/{n}.png", full)(d) for n in "abc"]


def forbid(name: str) -> Spoil:
    """May neither be read nor written; for root, whom the system forbids nothing, `run` sees to it."""

    def spoil(folder: Path) -> None:
        (folder / name).chmod(0)
        if os.access(folder / name, os.R_OK):
            FORBIDDEN.append(folder / name)

    return spoil


def model(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> Spoil:
    """The model with other tensors or metadata."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told = json.loads(file.metadata()["acclimate"])
        changed = change(tensors, told)
        save_file(tensors, path, {"acclimate": changed if isinstance(changed, str) else json.dumps(told)})

    return spoil


def model_header(header: bytes, length: int | None = None) -> Spoil:
    return write("model.safetensors", struct.pack("<Q", len(header) if length is None else length) + header)


class Bomb:
    """What a malicious pickle holds: a function to be called while it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/acclimate-was-here",)


def patched(where: Any, name: str, make: Callable[[Any, Path], Any]) -> Spoil:
    """Another function of the program for the time of one case; takes the place of a second process's doings."""
    return lambda d: PATCHES.append((where, name, make(getattr(where, name), d)))


def and_then(spoil: Spoil) -> Callable[[Any, Path], Any]:
    """The function, and once it has returned, a mishap."""

    def make(function: Any, folder: Path) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            spoil(folder)
            return result

        return wrapped

    return make


def answer(case: Case, folder: Path) -> tuple[int, str, str]:
    """Spoil a good folder, and run the command: its exit code, and what it says on stdout and stderr."""
    FORBIDDEN.clear()
    PATCHES.clear()
    case.spoil(folder)
    return run(case.words(folder))


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command in this process, with the patches of the case and, for root, its forbidden paths."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        for where, name, value in PATCHES:
            stack.enter_context(mock.patch.object(where, name, value))
        if FORBIDDEN:
            for where, name in ((builtins, "open"), (io, "open"), (os, "mkdir"), (os, "scandir"), (os, "listdir")):
                stack.enter_context(mock.patch.object(where, name, _guarded(getattr(where, name))))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        code = cli.main(words)
    return code, out.getvalue(), err.getvalue()


def _guarded(function: Callable) -> Callable:
    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(path, int) and any(Path(path).is_relative_to(forbidden) for forbidden in FORBIDDEN):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *args, **kwargs)

    return call


FORBIDDEN: list[Path] = []
PATCHES: list[tuple[Any, str, Any]] = []

B, LABEL = "target/b.png", "source/labels/b.png"


def image(what: str, spoil: Spoil, *says: str, note: str = "") -> Case:
    says = (B, *says) if says else ()
    return Case("Images", what, spoil, adapt() if says else check(), says, note)


def labels(what: str, spoil: Spoil, *says: str, note: str = "", words: Callable | None = None) -> Case:
    return Case("Labels", what, spoil, words or (adapt() if says else check()), says, note)


def bad_recipe(what: str, content: bytes | str, *says: str, note: str = "") -> Case:
    words = adapt("{d}/own.yaml") if says else check("{d}/own.yaml")
    return Case("Recipes", what, write("own.yaml", content), words, ("own.yaml", *says) if says else (), note)


def override(what: str, word: str, *says: str) -> Case:
    return Case("Recipes", what, nothing, adapt(word), says)


def bad_model(what: str, spoil: Spoil, *says: str, note: str = "") -> Case:
    return Case("Models", what, spoil, PREDICT, ("model.safetensors", *says) if says else (), note)


def bad_map(what: str, content: str | bytes, *says: str) -> Case:
    return Case("Label maps", what, write("map.yaml", content), adapt("--labels", "{d}/map.yaml"), ("map.yaml", *says))


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(c + 1)}: &{chr(c + 1)} [{', '.join([f'*{chr(c)}'] * 9)}]\n" for c in range(ord("a"), ord("k"))
)
LONG = "x" * 240

CASES: tuple[Case, ...] = (
    image("truncated PNG", truncate(B), "cannot be decoded"),
    Case("Images", "truncated JPEG", every(as_kind(B, "jpg"), truncate("target/b.jpg")), adapt(),
         ("target/b.jpg", "truncated")),
    image("0 bytes", write(B, b""), "is empty"),
    image("text in a file called .png", write(B, "hello"), "is not an image"),
    image("zeros instead of data", write(B, bytes(5000)), "is not an image"),
    image("JPEG called .png", lambda d: Image.open(d / B).save(d / B, "JPEG"), note="the content decides"),
    image("16 bits a channel", depth16(B), note="the upper 8 bits are used"),
    image("16-bit grey", array(B, np.full(SIZE[::-1], 40000, np.uint16)), note="the upper 8 bits are used"),
    Case("Images", "floating-point TIFF", every(lambda d: (d / B).unlink(), array("target/b.tif", np.zeros(
        SIZE[::-1], np.float32))), adapt(), ("target/b.tif", "8 bits")),
    image("CMYK", as_kind(B, "jpg", mode="CMYK"), note="becomes RGB"),
    image("palette", as_kind(B, "png", mode="P"), note="becomes RGB"),
    image("transparent", as_kind(B, "png", mode="RGBA"), note="transparency is dropped"),
    image("grey", as_kind(B, "png", mode="L"), note="becomes RGB"),
    image("1 bit", as_kind(B, "png", mode="1"), note="becomes RGB"),
    image("animated PNG", as_kind(B, "png", moves=True), note="the first frame is used"),
    image("animated WebP", as_kind(B, "webp", moves=True), note="the first frame is used"),
    image("animated GIF", as_kind(B, "gif", mode="P", moves=True), note="GIFs are no images here: passed over"),
    image("EXIF says it lies on its side", as_kind(B, "jpg", exif=True), note="is turned upright"),
    image("1 x 1 pixel", lambda d: picture(d / B, size=(1, 1)), note="is enlarged like any other"),
    image("a strip of 1 x 60,000 pixels", lambda d: picture(d / B, size=(1, 60000)), "less extreme"),
    image("header that says 50,000 x 50,000 pixels", write(B, png_header(50000, 50000)), "fill the memory"),
    image("header that says 0 x 0 pixels", write(B, png_header(0, 0)), "is not an image"),
    image("may not be read", forbid(B), "permissions"),
    image("broken link", every(lambda d: (d / B).unlink(), lambda d: (d / B).symlink_to("gone.png")), "link to gone"),
    image("link that leads to itself", every(lambda d: (d / B).unlink(), lambda d: (d / B).symlink_to("b.png")),
          "cannot be"),
    image("folder called .png", every(lambda d: (d / B).unlink(), lambda d: (d / B).mkdir()),
          note="is searched like any folder"),
    image("pipe called .png", every(lambda d: (d / B).unlink(), lambda d: os.mkfifo(d / B)), "is no file"),
    Case("Images", "file name in another encoding", lambda d: (d / B).rename(d / "target" / os.fsdecode(b"b\xe9.png")),
         adapt(), ("target", "b\\udce9.png", "rename")),
    Case("Images", "file name with a terminal's escape codes", lambda d: (d / B).rename(d / "target/\x1b[2Jb.png"),
         adapt(), ("target", "\\x1b[2Jb.png", "rename")),
    Case("Images", "file name that looks like markup", write("target/[red]b[bold].png", b""), adapt(),
         ("target/[red]b[bold].png", "empty")),
    Case("Images", "file name of 251 letters", lambda d: (d / B).rename(d / f"target/{'x' * 247}.png"), PREDICT,
         note="its mask has the same"),
    Case("Images", "a broken one among those to predict", truncate(B), PREDICT,
         (B, "2 masks written, 1 images left out"), "the others are done", "masks/*"),
    Case("Images", "truncated, with `data.on_bad_image: skip`", truncate(B), check("data.on_bad_image=skip"),
         note="is left out, and listed as a warning"),
    Case("Images", "two of three truncated, with `data.on_bad_image: skip`", every(truncate(B), truncate(
        "target/a.png")), adapt("data.on_bad_image=skip"), (B, "2 of 3 images", "1 at most")),

    labels("colours where ids are expected", lambda d: picture(d / LABEL), LABEL, "colours", "label map"),
    labels("ids where colours are expected", write("map.yaml", "'#000000': red\n'#ffffff': blue\n"), "map.yaml",
           "single ids", words=adapt("--labels", "{d}/map.yaml")),
    labels("an id that is not in the map", lambda d: label(d / LABEL, 77), LABEL, "77"),
    labels("an id beyond 8 bits", array(LABEL, np.full(SIZE[::-1], 7000, np.uint16)), LABEL, "7000"),
    labels("a negative id", every(lambda d: (d / LABEL).unlink(), array(
        LABEL.replace("png", "tif"), np.full(SIZE[::-1], -5, np.int32))), "b.tif", "-5"),
    labels("every pixel of every label ignored", relabel(255), "every pixel of all 3 labels is ignored"),
    labels("every pixel of one label ignored", lambda d: label(d / LABEL, 255), note="teaches nothing, does no harm"),
    labels("another size than its image", lambda d: label(d / LABEL, size=(32, 24)), LABEL, "32x24", "64x48"),
    labels("0 bytes", write(LABEL, b""), LABEL, "is empty"),
    labels("truncated", truncate(LABEL, 0.7), LABEL, "cannot be decoded"),
    labels("missing", lambda d: (d / LABEL).unlink(), "images/b.png", "no label"),
    labels("floating-point TIFF", every(lambda d: (d / LABEL).unlink(), array(
        LABEL.replace("png", "tif"), np.zeros(SIZE[::-1], np.float32))), "b.tif", "whole numbers"),
    labels("1 bit", lambda d: Image.new("1", SIZE, 1).save(d / LABEL), note="ids 0 and 1"),
    labels("palette", lambda d: Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).convert("P").save(d / LABEL),
           note="its indices are the ids"),
    labels("JPEG, which alters ids", nothing, "lossy", words=adapt("--source-labels", "{{name}}.jpg")),
    labels("template that leads nowhere", nothing, "no such folder",
           words=adapt("--source-labels", "nowhere/{{name}}.png")),
    labels("template with an unknown word", nothing, "{nome}", words=adapt("--source-labels", "gt/{{nome}}.png")),

    override("unknown key", "selflabel.temprature=0.1", "selflabel.temprature", "temperature"),
    override("unknown section", "selflable.temperature=0.1", "selflable", "selflabel"),
    override("text for a number", "source.iterations=many", "source.iterations", "many"),
    override("fraction for a whole number", "source.iterations=2.5", "source.iterations", "2.5"),
    override("yes for a number", "source.iterations=yes", "source.iterations", "True"),
    override("out of range", "optimizer.ema=1.5", "optimizer.ema", "1.5"),
    override("negative weight", "selflabel.weight_target=-1", "selflabel.weight_target", "negative"),
    override("not a number", "optimizer.lr=.nan", "optimizer.lr", "finite"),
    override("infinite", "optimizer.lr=1e999", "optimizer.lr", "finite"),
    override("number beyond all bounds", "selflabel.iterations=" + "9" * 5000, "selflabel.iterations"),
    override("more memory than any machine has", "selflabel.bank=99999999999", "selflabel.bank", "at most"),
    override("zero iterations", "source.iterations=0", "source.iterations"),
    override("contradiction", "distill={{rounds: 1, iterations: 0}}", "distill.rounds"),
    override("nothing left to learn", "selflabel={{weight_source: 0, weight_target: 0, weight_consistency: 0}}",
             "nothing would be learned"),
    override("crop below the least size", "data.crop=[8, 8]", "data.crop", "32"),
    override("list of the wrong length", "data.crop=[64]", "data.crop", "2 values"),
    override("fewer images than the batch", "selflabel.batch=4", "selflabel.batch", "3 images"),
    override("no value", "selflabel.iterations=", "selflabel.iterations"),
    override("value that is not YAML", "data.crop=[64", "data.crop", "not valid YAML"),
    override("path through a value", "seed.deeper=1", "seed", "expected a whole number"),
    override("unknown classes", "data.classes=cityscapes20", "cityscapes20", "cityscapes19"),
    Case("Recipes", "unknown backbone", nothing, adapt("network.backbone=resnet5"), ("resnet5",), alters="run/*"),
    Case("Recipes", "backbone that would come from the network", nothing, adapt("network.backbone=hf-hub:evil/model"),
         ("hf-hub:evil/model",), alters="run/*"),
    override("escape codes in a path", "data.val.path=\"\\e[2J\"", "data.val.path", "control characters"),
    Case("Recipes", "two problems at once", nothing, adapt("optimizer.ema=1.5", "data.width=-3"),
         ("2 problems", "optimizer.ema", "data.width")),
    Case("Recipes", "unknown name", nothing, adapt("lptop"), ("lptop", "laptop")),
    Case("Recipes", "two recipes", nothing, adapt("laptop", "demo"), ("one recipe at a time",)),
    Case("Recipes", "missing file", nothing, adapt("{d}/gone.yaml"), ("gone.yaml", "no such recipe")),
    Case("Recipes", "a folder", lambda d: (d / "own.yaml").mkdir(), adapt("{d}/own.yaml"), ("own.yaml", "no file")),
    Case("Recipes", "an image", nothing, adapt("{d}/target/b.png"), (B, "UTF-8")),
    Case("Recipes", "file that may not be read", forbid("recipe.yaml"), adapt("{d}/recipe.yaml"),
         ("recipe.yaml", "Permission denied")),
    bad_recipe("empty file", "", note="a recipe of defaults"),
    bad_recipe("byte order mark", b"\xef\xbb\xbfseed: 1\n", note="is passed over"),
    bad_recipe("Windows' line ends", b"seed: 1\r\ndata:\r\n  width: 64\r\n", note="are read"),
    bad_recipe("Latin-1", "# Äpfel\nseed: 1\n".encode("latin-1"), "UTF-8"),
    bad_recipe("UTF-16", "seed: 1\n".encode("utf-16"), "UTF-8"),
    bad_recipe("zero bytes", b"seed: 1\0\n", "not valid YAML"),
    bad_recipe("tabs", "data:\n\twidth: 64\n", "line 2"),
    bad_recipe("not closed", "data: {width: 64\n", "not valid YAML"),
    bad_recipe("a list", "- seed: 1\n", "a mapping"),
    bad_recipe("keys twice", "seed: 1\ndata: {width: 64, width: 65}\nseed: 2\n", "seed (again in line 3)",
               "data.width"),
    bad_recipe("billion laughs", LAUGHS, "alias"),
    bad_recipe("merged bombs", "a: &a {x: 1}\n<<: [*a, *a]\n", "alias"),
    bad_recipe("nested 5,000 deep", "a: " + "[" * 5000, "nested too deeply"),
    bad_recipe("a Python object", "seed: !!python/object/apply:os.system ['touch /tmp/acclimate-was-here']\n",
               "not valid YAML", "python/object"),
    bad_recipe("a date that is none", "seed: 2001-99-99\n", "a value cannot be read"),
    bad_recipe("number with 5,000 digits", "seed: " + "9" * 5000, "a value cannot be read"),
    bad_recipe("2 MiB long", "# x\n" * (1 << 19), "longer than 1 MiB"),
    bad_recipe("a section that is a value", "data: 5\n", "data is not a section"),
    bad_recipe("a key of 500 letters", f"{'k' * 500}: 1\n", "unknown key"),

    bad_map("missing class names", "0:\n1: road\n", "0: expected a class name"),
    bad_map("one class", "0: road\n", "at least 2"),
    bad_map("id out of range", "70000: road\n1: car\n", "70000"),
    bad_map("ids and colours", "0: road\n'#010203': car\n", "both"),
    bad_map("unquoted colour", "#010203: road\n1: car\n2: sky\n", "quotes"),
    bad_map("key twice", "1: car\n2: sky\n1: road\n", "1: listed 2 times"),
    bad_map("escape codes in a class name", '1: "\\e[2Jcar"\n2: sky\n', "control characters"),
    bad_map("aliases", "1: &a car\n2: *a\n3: sky\n", "alias"),
    bad_map("Latin-1", "1: Straße\n2: sky\n".encode("latin-1"), "UTF-8"),
    bad_map("a list", "- road\n", "a label map has lines"),
    Case("Label maps", "missing file", nothing, adapt("--labels", "{d}/gone.yaml"), ("gone.yaml", "no such label map")),
    Case("Label maps", "class names that look like markup", every(
        write("map.yaml", "0: '[red]road'\n1: '[/] | <b>'\n2: ':car:'\nother: ignore\n"), relabel(0)),
        check("--labels", "{d}/map.yaml"), note="are shown as they are"),

    bad_model("truncated", truncate("model.safetensors"), "damaged"),
    bad_model("0 bytes", write("model.safetensors", b""), "damaged"),
    bad_model("another program's file", write("model.safetensors", "hello " * 99), "neither a safetensors file"),
    bad_model("header that says 2^60 bytes", model_header(b"{}", 1 << 60), "damaged"),
    bad_model("header that is not JSON", model_header(b"{not json"), "damaged"),
    bad_model("tensor of negative shape", model_header(
        b'{"w":{"dtype":"F32","shape":[-1,4],"data_offsets":[0,16]}}' + bytes(16), 58), "damaged"),
    bad_model("tensor beyond the end of the file", model_header(
        b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'), "damaged"),
    bad_model("no metadata", lambda d: save_file({"w": torch.zeros(2)}, d / "model.safetensors"), "not a model"),
    bad_model("metadata that is not JSON", model(lambda _, told: "{not json"), "damaged"),
    bad_model("metadata nested 100,000 deep", model(lambda _, told: "[" * 100000), "damaged"),
    bad_model("metadata without width", model(lambda _, told: told.pop("width")), "'width'"),
    bad_model("metadata with a text for width", model(lambda _, told: told.update(width="64")), "'width'"),
    bad_model("metadata of unknown version", model(lambda _, told: told.update(version="9")), "version 9"),
    bad_model("class names with escape codes", model(
        lambda _, told: told["space"].update(classes=["\x1b[2J", "b", "c"])), "control characters"),
    bad_model("network of another size than the tensors", model(
        lambda _, told: told["network"].update(channels=16)), "has shape"),
    bad_model("network with an unknown key", model(lambda _, told: told["network"].update(layers=9)), "unknown key"),
    bad_model("values that are not finite", model(lambda tensors, _: next(
        t for t in tensors.values() if t.is_floating_point()).fill_(float("nan"))), "not finite"),
    bad_model("whole numbers for weights", model(lambda tensors, _: tensors.update(
        {k: v.to(torch.int32) for k, v in tensors.items()})), "int32 instead of float32"),
    bad_model("half precision", model(lambda tensors, _: tensors.update(
        {k: v.half() for k, v in tensors.items() if v.is_floating_point()})), note="is read as float32"),
    bad_model("pickle that runs a program", lambda d: (d / "model.safetensors").write_bytes(pickle.dumps(Bomb())),
              "refused"),
    bad_model("torch.save of an object that runs a program",
              lambda d: torch.save({"w": torch.zeros(2), "x": Bomb()}, d / "model.safetensors"), "refused", "system"),
    bad_model("truncated checkpoint of torch.save", every(
        lambda d: torch.save({"w": torch.zeros(99)}, d / "model.safetensors"), truncate("model.safetensors")),
        "damaged"),
    bad_model("official checkpoint of another network", lambda d: torch.save(
        {"ResNet101": {"model_state": {"w": torch.zeros(2)}}}, d / "model.safetensors"), "not the paper's network"),
    bad_model("official checkpoint that holds a text", lambda d: torch.save("hello", d / "model.safetensors"),
              "without named tensors"),
    bad_model("missing", lambda d: (d / "model.safetensors").unlink(), "no such model"),
    Case("Models", "of other classes than asked for", nothing, adapt("start={d}/model.safetensors"),
         ("model.safetensors", "3 classes"), alters="run/*"),
    Case("Models", "backbone file that runs a program", lambda d: torch.save({"x": Bomb()}, d / "w.pth"),
         adapt("network.weights={d}/w.pth"), ("w.pth", "refused"), alters="run/*"),
    Case("Models", "backbone file of another network", lambda d: torch.save({"x": torch.zeros(2)}, d / "w.pth"),
         adapt("network.weights={d}/w.pth"), ("w.pth", "not weights of this backbone"), alters="run/*"),
    Case("Models", "run that has not come to its end", lambda d: (d / "run").mkdir(),
         command("predict", "{d}/run", "{d}/target", "--out", "{d}/masks"), ("run", "not come to its end")),

    Case("Folders", "missing", lambda d: (d / "target").rename(d / "elsewhere"), adapt(), ("target", "no such folder")),
    Case("Folders", "a file", every(lambda d: shutil.rmtree(d / "target"), write("target", "x")), adapt(),
         ("target", "is a file")),
    Case("Folders", "without images", lambda d: [f.unlink() for f in (d / "target").iterdir()], adapt(),
         ("target", "no images")),
    Case("Folders", "two images of one name", lambda d: picture(d / "target/b.bmp"), adapt(),
         ("b.bmp", "b.png", "same name")),
    Case("Folders", "link in a circle", lambda d: (d / "target/again").symlink_to(d / "target"), check(),
         note="is not followed twice"),
    Case("Folders", "home of an unknown user", nothing, adapt("--target", "~nobody-here/x"),
         ("~nobody-here/x", "no such")),
    Case("Folders", "output is a file", write("run", "mine"), adapt(), ("run", "--out")),
    Case("Folders", "output holds other files", write("run/mine.txt", "mine"), adapt(), ("run", "not a run folder")),
    Case("Folders", "output below a file", write("file", "mine"),
         lambda d: [*adapt()(d)[:-1], str(d / "file" / "run")], ("file/run", "cannot be written")),
    Case("Folders", "output may not be written", every(lambda d: (d / "run").mkdir(), forbid("run")), adapt(),
         ("run", "Permission denied")),
    Case("Folders", "output holds a run of another recipe",
         every(write("run/recipe.yaml", "seed: 5\n"), write("run/stages/source/checkpoint.pt", "begun")), adapt(),
         ("another recipe", "seed: 5 there, 0 now", "--out")),
    Case("Folders", "the run's own recipe is damaged", write("run/recipe.yaml", "seed: [\n"), adapt(),
         ("run/recipe.yaml", "not valid YAML")),
    Case("Folders", "run to reuse is none", lambda d: (d / "old").mkdir(), adapt("--reuse", "{d}/old"),
         ("old", "not a run folder")),
    Case("Folders", "target inside the output", nothing,
         lambda d: [*adapt()(d)[:-1], str(d / "target")], ("target", "not a run folder")),
    Case("Folders", "masks into the folder of the images", nothing,
         command("predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/target"),
         ("take the place of photos",)),
    Case("Folders", "masks that exist", lambda d: label(d / "masks/b.png"), PREDICT, note="they stay as they are"),
    Case("Folders", "link in the output that leads out of it", every(
        lambda d: picture(d / "target/sub/x.png"), lambda d: (d / "away").mkdir(), lambda d: (d / "masks").mkdir(),
        lambda d: (d / "masks/sub").symlink_to(d / "away")), PREDICT, ("lead out", "masks/sub/x.png")),
    Case("Folders", "masks into a file", write("masks", "mine"), PREDICT, ("masks",)),
    Case("Folders", "images vanish while masks are made", patched(
        prediction, "plan", and_then(lambda d: shutil.rmtree(d / "target"))), PREDICT,
        ("0 masks written, 3 images left out", "no such file")),
    Case("Folders", "images vanish after the check", patched(
        pipeline, "check", and_then(lambda d: shutil.rmtree(d / "target"))), adapt(), ("target", "no such folder"),
        alters="run/*"),
    Case("Folders", "the run vanishes while it trains", patched(
        pipeline, "fit", lambda _, d: lambda _t, _b, plan, _r, journal: (
            shutil.rmtree(d / "run"), journal.record(plan.name, 1))), adapt(), ("run",), alters="run/*"),

    Case("Command line", "unknown device", nothing, command(
        "predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/masks", "--device", "gpu"), ("'gpu'", "auto")),
    Case("Command line", "device that is not there", nothing, adapt("device=cuda:99"), ("cuda:99", "auto"),
         alters="run/*"),
    Case("Command line", "width below the least", nothing, command(
        "predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/masks", "--width", "8"), ("width", "32")),
    Case("Command line", "scale of zero", nothing, command(
        "predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/masks", "--scales", "0"), ("scales",)),
    Case("Command line", "window below the least", nothing, command(
        "predict", "{d}/model.safetensors", "{d}/target", "--out", "{d}/masks", "--window", "4x4"), ("window",)),
    Case("Command line", "unknown layout", nothing, adapt("data.target.layout=gta6"), ("gta6", "gta5")),
    Case("Command line", "layout that the folder does not have", nothing, adapt("--target-layout", "cityscapes"),
         ("leftImg8bit", "data.target.path")),
    Case("Command line", "split of a folder that has none", nothing, adapt("--target-split", "train"), ("split",)),
    Case("Command line", "unknown meaning of ids", nothing, adapt("--source-ids", "cityscape"), ("cityscape",)),
    Case("Command line", "override without a key", nothing, adapt("=5"), ("key=value",)),
    Case("Command line", "nothing to predict", nothing, command(
        "predict", "{d}/model.safetensors", "{d}/gone", "--out", "{d}/masks"), ("gone", "no such file")),
    Case("Command line", "labels of another model's classes", nothing, command(
        "evaluate", "{d}/model.safetensors", "--data", "{d}/source", "--ids", "camvid"), ("camvid",)),
    Case("Command line", "conversion onto a file that exists", write("out.pkl", "mine"), command(
        "convert", "{d}/model.safetensors", "{d}/out.pkl"), ("out.pkl", "--overwrite")),
    Case("Command line", "export onto a file that exists", write("out.onnx", "mine"), command(
        "export", "{d}/model.safetensors", "{d}/out.onnx"), ("out.onnx", "--overwrite")),
    Case("Command line", "export of a model without photos to check it with", nothing, command(
        "export", "{d}/model.safetensors", "{d}/out.pt2"), ("model.safetensors", "--images")),
    Case("Command line", "export into nothing known", nothing, command(
        "export", "{d}/model.safetensors", "{d}/out.tflite"), ("out.tflite", ".onnx or .pt2")),
    Case("Command line", "conversion into nothing known", nothing, command(
        "convert", "{d}/model.safetensors", "{d}/out.doc"), ("out.doc", "suffix")),
)  # fmt: skip


# --- the table as a document ---

HEAD = """# Bad input

What the program answers to each of {count} bad inputs. The table is the one that `tests/test_hostile.py` runs, and the
messages are what it printed then, after `acclimate: `, on stderr: exit code 2, no traceback, and nothing that was there
before is altered.
Where an input works all the same (exit code 0), the answer says how. Written by

```console
$ PYTHONPATH=src:tests python tests/bad_inputs.py
```

## Broken images in a large target folder

`check`, and `adapt` before it starts, list every broken file of every set as a problem (`data.on_bad_image: stop`).
With `data.on_bad_image: skip` a few target images may be broken: one in 20, and one at least.

- Those found at the start are left out and listed as a warning. `left-out.json` in the run folder keeps their names,
  so that the run has the same images whenever it is continued, whether or not they are mended meanwhile.
- One that breaks while the run is going on is stood in for by the next image that can be read, with the item that this
  image has in the same epoch. It is told once and put on record in `replaced.txt`. Beyond one in 20 the run stops with
  a message, and goes on once the files are back.
- A batch thus follows from recipe, step and files alone, for any number of workers. A run repeats to the bit as far as
  each file could be read at the same steps: a disk that fails for a moment is not repeatable.

Labelled sets know no skipping: what is broken there is mended or removed by hand. Of sets with more than 2,000 images
the start-up check decodes 2,000 and reads the headers of all.

## What is never done

Nothing is unpickled but tensors and plain values ([checkpoints](checkpoints.md)). YAML is read without Python's tags
and without aliases, up to 1 MiB. Names from outside are shown with control characters written out (`\\x1b`), and never
read as markup. Masks are written below `--out` alone, through no link that leads out of it.
"""


def document(messages: Mapping[str, str]) -> str:
    """The table with the message of each case, by `key`, as Markdown."""
    parts = [HEAD.format(count=len(CASES))]
    for group in dict.fromkeys(case.group for case in CASES):
        rows = [f"| {_cell(c.what)} | {_answer(c, messages[key(c)])} |" for c in CASES if c.group == group]
        parts.append("\n".join([f"\n## {group}\n", "| input | answer |", "|---|---|", *rows, ""]))
    return "".join(parts)


def key(case: Case) -> str:
    return f"{case.group}: {case.what}"


def message(case: Case, folder: Path, said: str) -> str:
    """What is said on stderr, without the place of the folder, or the note on an input that works."""
    if case.code == WORKS:
        return ""
    said = re.sub(r"^warning: .*\n", "", said, flags=re.MULTILINE)  # of choices that are no error
    said = said.removeprefix("acclimate: ").replace(f"{folder}/", "").replace(str(folder), ".")
    said = said.replace(f"{Path.cwd()}/", "./").strip()
    return re.sub(r"(device '\S+' cannot be used) \(.*?\);", r"\1 (…);", said)  # the machine's own words


def _answer(case: Case, said: str) -> str:
    note = f" ({_cell(case.note)})" if case.note and said else ""
    return f"{_cell(said)}{note}" if said else f"works: {_cell(case.note)}"


def _cell(text: str) -> str:
    text = re.sub(r"(\S{60})\S{20,}", r"\1…", text)
    text = html.escape(text, quote=False).replace("\\", "\\\\")
    text = re.sub(r"([|*_`\[\]])", r"\\\1", text)
    return re.sub(r"\s*\n\s*", "<br>", text)


def main() -> None:
    """Write the document."""
    pipeline.fit = lambda *_: sys.exit("trained on bad input")  # type: ignore[assignment]
    messages = {}
    with tempfile.TemporaryDirectory() as scratch:
        good = good_folder(Path(scratch) / "good")
        for number, case in enumerate(CASES):
            folder = Path(shutil.copytree(good, Path(scratch) / f"{number}" / "d"))
            messages[key(case)] = message(case, folder, answer(case, folder)[2])
    DOCUMENT.write_text(document(messages), encoding="utf-8")


if __name__ == "__main__":
    main()
