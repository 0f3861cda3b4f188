"""README and docs: every code block runs, or is read by what would read it; every link leads somewhere.

A page's blocks run in its order and in one folder, like the one that README describes: renders with labels, photos
without, a label map, and a finished run (a tiny one: `shrink` makes whatever a page trains as small). What a block's
language says: ``bash`` and ``python`` are executed; ``console`` is too large for that or needs downloads, and is
parsed; ``yaml`` is loaded as a recipe or a label map; ``text`` is something to look at.
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import itertools
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

import acclimate
from acclimate import cli, recipe
from acclimate.cli.arguments import recipe_of
from acclimate.data import streets
from acclimate.labels import read_label_map

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
DIRECTIVES = ("{toctree}", "{eval-rst}")
"""Blocks that are for Sphinx."""
SHELL = {"cd", "git", "source", "zip"}
"""Programs that pages may name besides ours, and that are not ours to test."""
AT_MOST = {"iterations": 2, "batch": 2, "bank": 64, "channels": 16, "width": 64, "workers": 0, "candidates": 2}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def origin(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """Name of the file that the block is, as its first line says, such as ``# classes.yaml: …``."""
        found = re.match(r"# ([\w/-]+\.(?:yaml|py))\b", self.text)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    tokens = MarkdownIt().parse(PAGES[page].read_text(encoding="utf-8"))
    kinds = ("fence", "code_block")  # the latter is an indented one, which has no language
    return [Block(page, t.map[0] + 1, t.info.strip().split(" ")[0], t.content) for t in tokens if t.type in kinds]


@dataclass
class Reader:
    """Somebody who does what a page says."""

    folder: Path
    scope: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    shown: str = ""
    """All that was printed."""

    def do(self, block: Block) -> None:
        """Run a block, or see that it can be understood; raises AssertionError or what the block raises."""
        if block.language in DIRECTIVES or block.language == "text":
            return
        doing: dict[str, Callable[[Block], None]] = {
            "bash": self._bash, "console": self._console, "python": self._python, "yaml": self._yaml,
        }  # fmt: skip
        assert block.language in doing, (
            f"{block.origin}: a block of kind {block.language!r}; use one of {[*doing]}, text"
        )
        if block.file:
            (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
        doing[block.language](block)

    def _bash(self, block: Block) -> None:
        for words in commands(block.text):
            output = io.StringIO()
            with redirect_stdout(output), redirect_stderr(output):
                if words[0] == "acclimate":
                    words, target = redirected(words)
                    code = cli.main(words[1:])
                    assert code == 0, f"{block.origin}: {shlex.join(words)}: {output.getvalue()}"
                    if target:
                        Path(target).write_text(output.getvalue(), encoding="utf-8")
                elif words[0] == "python" and words[1].endswith(".py"):
                    run_file(words[1:])
                else:
                    understand(words)
            self.shown += output.getvalue()

    def _console(self, block: Block) -> None:
        lines = block.text.replace("\\\n", " ").splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        assert typed, f"{block.origin}: no line begins with $; output alone is text"
        for words in commands("\n".join(typed)):
            understand(words)

    def _python(self, block: Block) -> None:
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile("\n" * block.line + block.text, block.page, "exec"), self.scope)
        self.shown += output.getvalue()

    def _yaml(self, block: Block) -> None:
        path = self.folder / (block.file or "block.yaml")
        path.write_text(block.text, encoding="utf-8")
        tree = yaml.safe_load(block.text)
        if all(isinstance(key, int) or key.startswith("#") or key in ("other", "colours") for key in tree):
            read_label_map(path)
        else:
            recipe.load(path)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a script, comments left out; a line may hold several, joined by && or ;."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
        lexer.wordchars += "$,:@%+[]{}"
        for apart, words in itertools.groupby(lexer, key=lambda word: word in ("&&", ";", "&")):
            if not apart:
                yield list(words)


def redirected(words: list[str]) -> tuple[list[str], str]:
    """The words before ``> FILE``, and the file."""
    if ">" not in words:
        return words, ""
    at = words.index(">")
    return words[:at], words[at + 1]


def understand(words: Sequence[str]) -> None:
    """See that a command could be given as it stands: its parser takes the words, its recipe has no problems."""
    words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
    if words[0] in ("torchrun", "python", "python3") and "-m" in words:
        module, words = words[words.index("-m") + 1], words[words.index("-m") + 1 :]
        if module != "acclimate":
            assert module == "venv" or importlib.util.find_spec(module), words
            return
    program = Path(words[0]).name
    if program == "acclimate":
        args = cli.COMMANDS[words[1]].parser().parse_intermixed_args(redirected(words[2:])[0])
        if words[1] in ("adapt", "check"):
            recipe_of(args)
    elif program == "make":
        answer = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"\[(.*?)\]", " ".join(words))
        assert set(",".join(named).split(",")) <= {*extras, ""}, words
    elif program in ("python", "python3"):
        assert (ROOT / words[1]).is_file(), words
    else:
        assert program in SHELL, f"{program}: a program that is not known here"


def run_file(words: list[str]) -> None:
    """``python FILE ARGUMENTS``, in this process; FILE lies in the folder of the page, or in ours."""
    path = Path(words[0]) if Path(words[0]).exists() else ROOT / words[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        runpy.run_path(str(path), run_name="__main__")


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Whatever recipe is asked for, get one that is done in seconds; what it is made from is checked as it stands."""
    load = recipe.load

    def small(name: str | Path, overrides: Sequence[str] = ()) -> recipe.Recipe:
        overrides = [*overrides]
        flat = recipe.flatten(recipe.to_dict(load(name, overrides)))
        changes = {key: min(value, AT_MOST[key.rpartition(".")[2]]) for key, value in flat.items()
                   if key.rpartition(".")[2] in AT_MOST}  # fmt: skip
        changes |= {"data.crop": [32, 48], "optimizer.accumulate": 1}
        if flat["network.weights"] == "imagenet":
            changes["network.weights"] = "none"
        if flat["network.backbone"] == "efficientnet_lite0":
            changes["network.backbone"] = "test_resnet.r160_in1k"
        return load(name, [*overrides, *(recipe.as_override(key, value) for key, value in changes.items())])

    patch.setattr(recipe, "load", small)
    patch.setattr(streets, "write", functools.partial(streets.write, source=4, target=4, val=2, size=(48, 80)))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with renders, photos, measured photos, README's label map, and a finished run of these."""
    folder = tmp_path_factory.mktemp("ready")
    rng = np.random.default_rng(0)
    for name, images in {"renders": ["0001", "0002", "0003"], "photos": ["a", "b", "trip/c"], "measured": "xy"}.items():
        for image in images:
            path = folder / name / ("" if name == "photos" else "images") / f"{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
            if name != "photos":
                label = folder / name / "labels" / f"{image}.png"
                label.parent.mkdir(exist_ok=True)
                Image.fromarray(rng.choice(np.array([7, 8, 11, 12, 23, 26, 0, 99], np.uint8), (48, 64))).save(label)
    (classes,) = (block for block in blocks("README.md") if block.file == "classes.yaml")
    (folder / classes.file).write_text(classes.text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        shrink(patch)
        acclimate.adapt("renders", "photos", labels="classes.yaml", out="runs/mine")
    return folder


@pytest.fixture(scope="module")
def follow(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reader]:
    """Do what a page says, once."""

    @functools.cache
    def follow(page: str) -> Reader:
        reader = Reader(Path(shutil.copytree(ready, tmp_path_factory.mktemp("page") / "folder")))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(reader.folder)
            shrink(patch)
            for block in blocks(page):
                reader.do(block)
        return reader

    return follow


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_every_block_does_what_the_page_says(page: str, follow: Callable[[str], Reader]) -> None:
    follow(page)


def test_what_readme_shows_comes_out(follow: Callable[[str], Reader]) -> None:
    reader = follow("README.md")
    assert "taken over from runs/mine" in reader.shown and "pavement" in reader.shown
    masks = sorted(
        path.relative_to(reader.folder / "masks").as_posix() for path in reader.folder.glob("masks/**/*.png")
    )
    assert masks == ["a.png", "b.png", "trip/c.png"]
    assert reader.scope["label_HW"].shape == (48, 64)
    assert reader.scope["model"].space.classes == ("road", "pavement", "building", "sky", "car")


def test_the_tables_name_the_recipes_they_come_from() -> None:
    """The words after ``acclimate adapt`` mean what the text around them says."""
    pages = [block for page in ("README.md", "docs/reproducing.md") for block in blocks(page)]
    lines = [words for block in pages for words in commands(block.text.replace("$ ", "")) if words[0] == "acclimate"]
    made = {words[2]: recipe_of(cli.COMMANDS["adapt"].parser().parse_intermixed_args(words[2:]))
            for words in lines if words[1] == "adapt" and not words[2].startswith(("-", "runs"))}  # fmt: skip
    assert {"laptop", "gta5-cityscapes", "gta5-cityscapes-official"} <= set(made)
    official = made["gta5-cityscapes-official"]
    assert (
        official.method == "official" and official.start.endswith(".pkl") and official.data.val.layout == "cityscapes"
    )


@pytest.mark.parametrize(
    ("language", "text"),
    [("", "acclimate recipes"), ("sh", "acclimate recipes"), ("bash", "acclimate recipes gta6"), ("bash", "rm -r runs"),
     ("console", "acclimate recipes"), ("console", "$ acclimate predict runs/mine"), ("console", "$ make nothing"),
     ("console", "$ acclimate adapt laptop selflabel.temprature=1 --out x"),
     ("console", "$ pip install 'acclimate[x]'"),
     ("console", "$ python benchmarks/gone.py"), ("yaml", "selflable: {iterations: 2}"), ("yaml", "7: road\n7: sky\n"),
     ("python", "assert acclimate")],
)  # fmt: skip
def test_a_block_that_says_something_wrong_is_noticed(language: str, text: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, SystemExit)), redirect_stderr(io.StringIO()):
        Reader(tmp_path).do(Block("page.md", 1, language, text))


def test_links_lead_somewhere() -> None:
    for page, path in {
        **PAGES,
        "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md",
        "CHANGELOG.md": ROOT / "CHANGELOG.md",
    }.items():
        text = path.read_text(encoding="utf-8")
        for link in [*re.findall(r"\]\(([^)#\s]+)[^)]*\)", text), *re.findall(r'<img[^>]*src="([^"]+)"', text)]:
            assert link.startswith("https://") or (path.parent / link).exists(), f"{page}: {link}"


def test_the_make_targets_exist() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (*PAGES.values(), ROOT / "CONTRIBUTING.md"))
    for target in set(re.findall(r"`make ([\w-]+)", text)):
        understand(["make", target])


def test_every_page_has_its_place_in_the_contents() -> None:
    contents = "".join(block.text for block in blocks("docs/index.md"))
    listed = re.findall(r"^(?:.* <)?([\w-]+)>?$", contents, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in ROOT.glob("docs/*.md") if path.stem != "index")


def test_quoted_messages_are_the_programs_own() -> None:
    """What docs/troubleshooting.md quotes in its headings still stands in the code, ``…`` for what varies."""
    known = [
        said for path in (ROOT / "src").rglob("*.py") for said in sayings(ast.parse(path.read_text(encoding="utf-8")))
    ]
    page = PAGES["docs/troubleshooting.md"].read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert len(quoted) > 20
    gone = [message for message in quoted if not any(message.strip("… ") in said for said in known)]
    assert not gone


def sayings(tree: ast.AST) -> Iterator[str]:
    """Texts of a file, ``…`` for the values in formatted ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_every_recipe_key_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("recipe_keys").markdown()
    said = dict(re.findall(r"^````\{confval\} (\S+)\n.*?\n\n(.*?)\n", page, flags=re.MULTILINE | re.DOTALL))
    keys = {
        key for key in recipe.flatten(recipe.to_dict(recipe.Recipe())) if not re.match(r"data\.(target|val|ceil)", key)
    }
    assert set(said) == keys
    assert [key for key, text in said.items() if not text.strip()] == []
    assert "`camvid`" in page and "0.08" in page


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="needs the extra `docs`")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path / "html")]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "selflabel.temperature" in (tmp_path / "html/recipe-keys.html").read_text(encoding="utf-8")
