"""The report's content: what stands on the page of a run, of a run nobody measured, of several, and of damaged ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from acclimate import cli, results, training
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.labels import IGNORE, LabelSpace
from acclimate.report import embed, write_report
from acclimate.report.charts import Bar, Line, bars, lines, nice
from acclimate.report.record import open_record
from acclimate.run import Run


class Page(HTMLParser):
    """Ids, images and words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append(tag)
        if said.get("id"):
            self.ids.append(str(said["id"]))
        if tag == "img":
            self.images.append(said)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page(tiny_runs: tuple[Path, Path]) -> Page:
    return Page(tiny_runs[0] / "report.html")


@pytest.fixture
def copied(tiny_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny_runs[0], tmp_path / "run")


def test_adapt_leaves_a_page_with_every_panel(page: Page) -> None:
    panels = ("pictures", "classes", "stages", "distribution", "corrections", "certainty", "confusion", "recipe")
    assert {f"run1-{name}" for name in panels} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for stage in ("source only", "warm-up", "stage 1", "stage 2", "stage 3", "ceiling"):
        assert stage in page.text
    assert "selflabel.temperature" not in page.text.split("The whole recipe")[0]  # it is as the defaults have it
    assert "temperature: 0.08" in page.text


def test_the_numbers_are_those_of_the_run(page: Page, tiny_runs: tuple[Path, Path]) -> None:
    record = open_record(tiny_runs[0])
    for row in (record.base, record.adapted, record.ceiling):
        assert row is not None and f"{100 * row['mean_iou']:.1f}" in page.text
        for iou in row["iou"].values():
            assert iou is None or f"{100 * iou:.1f}" in page.text
    matrix = record.confusion(record.adapted["name"])
    assert matrix is not None
    assert [sum(row) for row in matrix] == list(record.adapted["pixels"].values())


def test_classes_stand_in_the_order_of_their_pixels(tiny_runs: tuple[Path, Path]) -> None:
    for folder in tiny_runs:
        record = open_record(folder)
        shares = record.frequency()
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert set(shares) == set(record.space.classes) and sum(shares.values()) == pytest.approx(1)
        words = Page(folder / "report.html").text.split("the most frequent first")[1].split("as a table")[0].split()
        assert [word for word in words if word in shares] == list(shares)


def test_every_layer_of_the_slider_is_there_and_pictures_have_words(page: Page) -> None:
    layers = [image for image in page.images if image.get("data-key")]
    keys = ["source", "warmup", "selflabel", "distill-1", "distill-2", "average", "ceiling", "truth"]
    assert [image["data-key"] for image in layers] == keys * 2  # two labelled images
    assert all(image.get("alt") and str(image["src"]).startswith("data:image/") for image in page.images)


def test_nothing_is_loaded_from_anywhere(tiny_runs: tuple[Path, Path]) -> None:
    text = (tiny_runs[0] / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "default-src 'none'" in text


def test_every_link_leads_somewhere(tiny_runs: tuple[Path, Path]) -> None:
    for folder in tiny_runs:
        ids = Page(folder / "report.html").ids
        links = re.findall(r'href="#([^"]+)"', (folder / "report.html").read_text())
        assert len(links) > 5 and set(links) <= set(ids)


def test_without_labels_the_estimate_stands_and_is_named(tiny_runs: tuple[Path, Path]) -> None:
    blind = Page(tiny_runs[1] / "report.html")
    estimate = open_record(tiny_runs[1]).adapted["estimate"]
    assert f"{100 * estimate['mean_iou']:.1f} ± {100 * estimate['error']:.1f}" in blind.text
    assert "estimated without labels" in blind.text and "measured on" not in blind.text
    assert "run1-confusion" not in blind.ids and "run1-corrections" in blind.ids
    assert "truth" not in {image.get("data-key") for image in blind.images}
    assert "became right" not in blind.text and "ceiling" not in blind.text.split("Stages and losses")[0]


def test_several_runs_on_one_page(tiny_runs: tuple[Path, Path], tmp_path: Path) -> None:
    first = shutil.copytree(tiny_runs[0], tmp_path / "first")
    text = (first / "recipe.yaml").read_text()
    (first / "recipe.yaml").write_text(text.replace("temperature: 0.08", "temperature: 0.07"))
    assert cli.main(["report", str(first), str(tiny_runs[0]), "--out", str(tmp_path / "both.html")]) == 0
    both = Page(tmp_path / "both.html")
    assert "2 runs compared" in both.text and {"comparison", "run1-classes", "run2-classes"} <= set(both.ids)
    assert "differ key first measured selflabel.temperature 0.07 0.08 first" in both.text
    keys = {image.get("data-key") for image in both.images}
    assert {"run1", "run2", "truth"} <= keys


def test_runs_of_other_classes_are_not_compared(tiny_runs: tuple[Path, Path], copied: Path, trained: Path) -> None:
    for folder in (copied / "stages").iterdir():
        if (folder / "model.safetensors").exists():
            shutil.copy(trained / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(UserError, match="compare runs of the same classes"):
        write_report([tiny_runs[0], copied], copied / "x.html", "cpu")


def remove(*names: str) -> Callable[[Path], None]:
    return lambda run: [(run / name).unlink() for name in names] and None


def change(name: str, edit: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = json.loads((run / name).read_text())
        edit(content)
        (run / name).write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("recipe.yaml"), "not a run folder"),
        (lambda run: shutil.rmtree(run / "stages"), "no stage is finished yet"),
        (lambda run: (run / "stages/source/done.json").write_text('{"name": "sou'), "source.done.json: cut or damaged"),
        (lambda run: (run / "stages/source/done.json").write_text("[1]"), "source.done.json: damaged"),
        (lambda run: (run / "selection.json").write_text("{"), "selection.json: cut or damaged"),
        (change("selection.json", lambda said: said.pop("estimates")), "selection.json: damaged"),
        (change("stages/warmup/done.json", lambda done: done.pop("minutes")), "stages/warmup.*minutes missing"),
        (change("stages/selflabel/scores.json", lambda said: said.pop("iou")), "stages/selflabel.*iou missing"),
        (lambda run: (run / "stages/selflabel/scores.json").write_text("7"), "selflabel.scores.json: damaged"),
        (change("stages/source/scores.json", lambda said: said["confusion"].pop()), "damaged, its confusion is not"),
        (remove("stages/ceiling/model.safetensors"), "ceiling.model.safetensors: not found"),
        (lambda run: (run / "stages/warmup/model.safetensors").write_bytes(b"\0" * 99), "warmup.model.safetensors"),
        (lambda run: (run / "stages/selflabel/prototypes.safetensors").write_bytes(b"7"), "prototypes.safetensors"),
        (lambda run: (run / "recipe.yaml").write_text("selflabel: {temprature: 1}"), "temprature"),
        (lambda run: (run / "environment.json").write_text("{"), "environment.json: cut or damaged"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_one_message(
    copied: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    (copied / "report.html").unlink()
    damage(copied)
    assert cli.main(["report", str(copied)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1 or "recipe" in message or "temprature" in said
    assert not (copied / "report.html").exists()


def test_an_unfinished_run_is_reported_as_far_as_it_is(copied: Path) -> None:
    for name in ("distill-1", "distill-2", "average", "ceiling"):
        shutil.rmtree(copied / "stages" / name)
    (copied / "selection.json").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "distill-1", "st')
    page = Page(write_report([copied], device="cpu"))
    assert open_record(copied).adapted["name"] == "selflabel"
    assert "points" in page.text and "ceiling" not in page.text.split("Stages and losses")[0]


def test_without_its_images_a_run_has_a_page_without_pictures(copied: Path) -> None:
    text = (copied / "recipe.yaml").read_text()
    (copied / "recipe.yaml").write_text(re.sub(r"path: \S+/streets/", "path: /nowhere/", text))
    page = Page(write_report([copied], device="cpu"))
    assert "No pictures: /nowhere/" in page.text and not page.images and "run1-confusion" in page.ids


def test_names_are_text_and_no_markup(copied: Path) -> None:
    evil = copied.rename(copied.with_name("a<img src=x onerror=alert(1)>&'\""))
    text = write_report([evil], device="cpu").read_text()
    assert "<img src=x" not in text and "a&lt;img src=x onerror=alert(1)&gt;&amp;" in text


def test_large_noisy_photos_make_a_page_below_5_mb(copied: Path, tmp_path: Path) -> None:
    """480 x 360, seven models; noise is the worst that a photo can be, and small nets of random weights see noise."""
    rng = np.random.default_rng(0)
    for role, count in (("target", 6), ("val", 4)):
        for number in range(count):
            small = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
            image = small.resize((480, 360), Image.Resampling.BICUBIC)
            label = Image.fromarray(rng.integers(0, 12, (36, 48), dtype=np.uint8)).resize((480, 360), 0)
            for kind, picture in (("images", image), ("labels", label)):
                if kind == "images" or role == "val":
                    path = tmp_path / role / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(path)
    text = (copied / "recipe.yaml").read_text()
    text = re.sub(r"path: \S+/streets/(target|val)", rf"path: {tmp_path}/\1", text)
    (copied / "recipe.yaml").write_text(text)
    page = write_report([copied], device="cpu")
    assert 300_000 < page.stat().st_size < 5_000_000
    assert len([image for image in Page(page).images if image.get("data-key")]) == 4 * 8


def test_a_page_that_cannot_be_drawn_does_not_lose_the_run(
    tiny_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise RuntimeError("out of colours")

    monkeypatch.setattr("acclimate.report.write_report", fail)
    console = Console(record=True, width=200)
    run = Run(tiny_runs[0], open_record(tiny_runs[0]).run.recipe)
    assert results._draw_report(run, torch.device("cpu"), Journal(tmp_path / "metrics.jsonl", console)) == []
    assert "no report (out of colours); `acclimate report" in console.export_text()


def test_stage_1_records_the_class_distribution(tiny_runs: tuple[Path, Path]) -> None:
    records = [json.loads(line) for line in (tiny_runs[0] / "metrics.jsonl").read_text().splitlines()]
    said = [record for record in records if record["stage"] == "selflabel" and "loss" in record]
    assert len(said) == 3
    for record in said:
        for name in ("share_labels", "share_assignments", "share_average"):
            assert len(record[name]) == 12 and sum(record[name]) == pytest.approx(1, abs=1e-4), name
    assert not any("share_labels" in record for record in records if record["stage"] != "selflabel")
    momentum = 0.99  # the average follows the labels
    before, now = (np.array(record["share_average"]) for record in said[:2])
    labels = np.array(said[1]["share_labels"])
    assert now == pytest.approx(momentum * before + (1 - momentum) * labels, abs=5e-6)


def test_terms_of_a_step_may_be_one_value_a_class() -> None:
    unread = [{"loss": torch.tensor(1.0), "share": torch.tensor([0.0, 1.0])},
              {"loss": torch.tensor(2.0), "share": torch.tensor([0.5, 0.5])}]  # fmt: skip
    state = training.State(step=2, unread=unread)
    plan = training.Plan("selflabel", 2, Path())
    assert training.read_terms(state, plan) == {"loss": 1.5, "share": [0.25, 0.75]}
    assert not state.unread


def test_bars_are_as_long_as_their_values() -> None:
    drawn = bars([Bar("a", 0.25, "c0"), Bar("b", None, "c7"), Bar("c", 1.4, "c1")], Bar("ceiling", 0.5, "c1"))
    assert re.findall(r'class="bar (c\d)"[^>]* width="([\d.]+)%"', drawn) == [("c0", "25.00"), ("c1", "100.00")]
    assert 'x1="50.00%"' in drawn and "a: 25.0 %" in drawn


def test_lines_stand_where_their_values_are() -> None:
    drawn = lines([Line("<a>", [(0, 0.0), (5, 1.0), (10, 0.5)], "c0")], (0, 10), (0, 1), 108, "said", dots=True)
    assert 'points="0.00,104.0 50.00,4.0 100.00,54.0"' in drawn
    assert 'role="img"' in drawn and 'aria-label="said"' in drawn and "&lt;a&gt;: 0.5" in drawn


@pytest.mark.parametrize(("top", "last"), [(0.6, 0.6), (0.61, 0.8), (1.9, 2), (0.02, 0.02), (7, 8), (0, 1)])
def test_ticks_are_round_and_reach_the_top(top: float, last: float) -> None:
    ticks = nice(top)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(last) and len(ticks) <= 6


def decoded(uri: str) -> np.ndarray:
    import base64
    import io

    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGBA"))


def test_changes_are_coloured_by_what_came_of_them(rgb_space: LabelSpace) -> None:
    before = np.array([[0, 0, 0, 1, 2]], np.uint8)
    after = np.array([[0, 1, 1, 2, 0]], np.uint8)
    truth = np.array([[1, 1, 0, 0, IGNORE]], np.uint8)
    found = decoded(embed.changes(before, after, truth, rgb_space))[0]
    assert found[:, 3].tolist() == [0, 255, 255, 255, 0]
    assert [tuple(pixel[:3]) for pixel in found[1:4]] == [embed.RIGHT, embed.SPOILED, embed.STILL_WRONG]
    blind = decoded(embed.changes(before, after, None, rgb_space))[0]
    assert blind[:, 3].tolist() == [0, 255, 255, 255, 255] and tuple(blind[1, :3]) == rgb_space.colours[1]


def test_ignored_pixels_let_the_photo_through(rgb_space: LabelSpace) -> None:
    found = decoded(embed.labels(np.array([[2, IGNORE]], np.uint8), rgb_space))[0]
    assert tuple(found[0]) == (*rgb_space.colours[2], 255) and found[1, 3] == 0


def test_pictures_keep_their_shape_and_are_not_enlarged() -> None:
    assert embed.fitted((1024, 2048)) == (320, 640) and embed.fitted((360, 480)) == (360, 480)
    assert embed.fitted((4000, 10)) == (640, 2)
