"""README's commands, in its order, on folders like the ones it describes."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import acclimate
from acclimate import cli, recipe
from acclimate.labels import read_label_map

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {
    "data.width": 64, "data.crop": [32, 48], "data.workers": 0, "network.backbone": "test_resnet.r160_in1k",
    "network.weights": "none", "network.channels": 16, "selflabel.bank": 64,
    **{f"{stage}.iterations": 2 for stage in ("source", "warmup", "selflabel", "distill")},
    **{f"{stage}.batch": 2 for stage in ("source", "warmup", "selflabel", "distill")},
}  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "acclimate"]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with renders, photos and measured photos, and the label map of the README."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, names in {"renders": ["1", "2", "3"], "photos": ["a", "b", "trip/c"], "measured": ["x", "y"]}.items():
        for name in names:
            image = tmp_path / folder / ("" if folder == "photos" else "images") / f"{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(image)
            if folder != "photos":
                label = tmp_path / folder / "labels" / f"{name}.png"
                label.parent.mkdir(exist_ok=True)
                Image.fromarray(rng.choice(np.array([7, 8, 11, 12, 23, 26, 0, 99], np.uint8), (48, 64))).save(label)
    (tmp_path / "classes.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


def test_every_command_does_what_readme_says(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [recipe.as_override(key, value) for key, value in SMALL.items()]
    for command in commands():
        if command[0] in ("adapt", "check"):
            # A copy of a run's recipe is small already, and what the README itself sets has to stay.
            own = {word.partition("=")[0] for word in command if "=" in word}
            command += [s for s in small if s.partition("=")[0] not in own]
            command = [
                word.replace("iterations=2000", "iterations=3").replace("width=960", "width=80") for word in command
            ]
        assert cli.main(command) == 0, f"{command}: {capsys.readouterr().err}"
    shown = capsys.readouterr().out
    assert "taken over from runs/mine" in shown and "pavement" in shown
    masks = sorted(str(path.relative_to("masks")) for path in Path("masks").rglob("*.png"))
    assert masks == ["a.png", "b.png", "trip/c.png"]
    exec_python(folders)


def exec_python(folders: Path) -> None:
    code = blocks("python")[0]
    scope: dict[str, Any] = {}
    original = acclimate.adapt
    acclimate.adapt = functools.partial(original, **SMALL)
    try:
        exec(compile(code, "README.md", "exec"), scope)
    finally:
        acclimate.adapt = original
    assert scope["label_HW"].shape == (48, 64)
    assert scope["model"].space.classes == ("road", "pavement", "building", "sky", "car")


def test_the_commands_that_need_downloads_are_understood() -> None:
    """Those of the tables and of docs/reproducing.md: words that the parsers take, and recipes without problems."""
    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    shown = "".join([*blocks("console"), *re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)])
    lines = [shlex.split(line) for line in shown.replace("\\\n", " ").splitlines()]
    made = {}
    for dollar, program, command, *words in lines:
        assert (dollar, program) == ("$", "acclimate")
        args = cli.COMMANDS[command].parser().parse_intermixed_args(words)
        if command in ("adapt", "check"):
            made[words[0]] = cli._recipe(args)
    assert set(made) == {"laptop", "gta5-cityscapes", "gta5-cityscapes-official"}
    assert made["laptop"].data.ceiling.labels == "trainannot_for_ceiling_only"
    assert made["gta5-cityscapes-official"].start.endswith(".pkl")


def test_the_label_map_of_the_data_page_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    path = tmp_path / "map.yaml"
    path.write_text(example, encoding="utf-8")
    space, table = read_label_map(path)
    assert space.classes == ("road", "building") and space.colours[0] == (128, 64, 128)
    assert table.ids[12] == 1 and table.unknown == "ignore"


def test_the_make_targets_exist() -> None:
    for target in set(re.findall(r"\bmake (\w+)", README)):
        answer = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
    for picture in re.findall(r'<img[^>]*src="([^"]+)"', README):
        assert (ROOT / picture).exists(), picture
