"""The built-in benchmark: two domains that share their meaning and differ in their looks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.data import streets
from acclimate.data.streets.camera import NEAR, Camera, clip_near
from acclimate.data.streets.canvas import Canvas, Face, convex_hull
from acclimate.data.streets.classes import Class
from acclimate.data.streets.folders import VAL_START
from acclimate.errors import UserError
from acclimate.labels import IGNORE, label_space

SMALL = (64, 112)
DOMAINS = ("source", "target")


@pytest.fixture(scope="module")
def pictures() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Some pictures of each domain, drawn once."""
    return {domain: [streets.render(domain, 0, i, SMALL) for i in range(24)] for domain in DOMAINS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("benchmark")
    streets.write(root, source=3, target=2, val=2, size=SMALL)
    return root


def frequencies(labels: list[np.ndarray]) -> np.ndarray:
    counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
    return counts / counts.sum()


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_classes_are_those_of_the_label_space():
    assert tuple(c.name.lower() for c in Class if c != Class.VOID) == label_space("streets").classes
    assert Class.VOID == IGNORE


@pytest.mark.parametrize("domain", DOMAINS)
def test_size_and_type_at_the_default_size(domain):
    image, label = streets.render(domain, 0, 0)
    assert image.shape == (*streets.SIZE, 3)
    assert label.shape == streets.SIZE
    assert image.dtype == label.dtype == np.uint8


@pytest.mark.parametrize("domain", DOMAINS)
def test_labels_are_train_ids_or_ignored(pictures, domain):
    values = set(np.unique([label for _, label in pictures[domain]]))
    assert values <= {*range(12), IGNORE}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_occurs_with_a_long_tail(pictures, domain):
    share = frequencies([label for _, label in pictures[domain]])
    assert (share[:12] > 0.0005).all()
    assert share[:12].min() < 0.005
    assert share[:12].max() > 40 * share[:12].min()
    assert share[IGNORE] < 0.05


def test_the_arguments_alone_decide():
    first, again = (streets.render("target", 3, 5, SMALL) for _ in range(2))
    assert digest(*first) == digest(*again)
    others = [("source", 3, 5), ("target", 4, 5), ("target", 3, 6)]
    assert len({digest(*first), *(digest(*streets.render(*key, SMALL)) for key in others)}) == 4


def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib; from acclimate.data import streets;"
        f"a, b = streets.render('target', 3, 5, {SMALL});"
        "print(hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(*streets.render("target", 3, 5, SMALL))


def test_the_domains_differ_in_looks_but_not_in_layout(pictures):
    images = {domain: np.stack([image for image, _ in pictures[domain]]).astype(float) for domain in DOMAINS}
    vividness = {domain: (x.max(-1) - x.min(-1)).mean() for domain, x in images.items()}
    assert vividness["source"] > 1.5 * vividness["target"]
    share = {domain: frequencies([label for _, label in pictures[domain]]) for domain in DOMAINS}
    assert np.minimum(share["source"], share["target"]).sum() > 0.8
    for domain in DOMAINS:  # sky above, road below, in both
        labels = np.stack([label for _, label in pictures[domain]])
        assert (labels[:, : SMALL[0] // 2] == Class.SKY).sum() > 20 * (labels[:, SMALL[0] // 2 :] == Class.SKY).sum()
        assert (labels[:, SMALL[0] // 2 :] == Class.ROAD).sum() > 20 * (labels[:, : SMALL[0] // 2] == Class.ROAD).sum()


def test_folders(folder):
    counts = {"source": 3, "target": 2, "val": 2, "ceiling": 2}
    for role, count in counts.items():
        assert len(list((folder / role / "images").iterdir())) == count
    for role in ("source", "val", "ceiling"):
        names = [sorted(p.name for p in (folder / role / kind).iterdir()) for kind in ("images", "labels")]
        assert names[0] == names[1]


def test_the_target_has_no_labels(folder):
    assert [p.name for p in (folder / "target").iterdir()] == ["images"]


def test_files_hold_what_render_draws(folder):
    expected = {
        "source": ("source", 1),
        "ceiling": ("target", 1),
        "val": ("target", VAL_START + 1),
    }
    for role, (domain, index) in expected.items():
        image, label = streets.render(domain, 0, index, SMALL)
        np.testing.assert_array_equal(np.array(Image.open(folder / role / "images" / "0001.png")), image)
        np.testing.assert_array_equal(np.array(Image.open(folder / role / "labels" / "0001.png")), label)
    assert (folder / "target/images/0001.png").read_bytes() == (folder / "ceiling/images/0001.png").read_bytes()


def test_labels_carry_the_colours_of_the_label_space(folder):
    with Image.open(folder / "val/labels/0000.png") as label:
        assert label.mode == "P"
        palette = np.array(label.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(palette[:12], label_space("streets").colour_map()[:12])


def test_a_finished_benchmark_is_left_alone(tmp_path):
    streets.write(tmp_path, source=1, target=1, val=1, size=SMALL)
    picture = tmp_path / "source/images/0000.png"
    picture.write_bytes(b"mine")
    streets.write(tmp_path, source=1, target=1, val=1, size=SMALL)
    assert picture.read_bytes() == b"mine"


def test_other_arguments_draw_it_anew_without_leftovers(tmp_path):
    streets.write(tmp_path, source=2, target=1, val=1, size=SMALL)
    streets.write(tmp_path, source=1, target=1, val=1, seed=1, size=SMALL)
    assert [p.name for p in (tmp_path / "source/images").iterdir()] == ["0000.png"]
    with Image.open(tmp_path / "source/images/0000.png") as image:
        np.testing.assert_array_equal(np.array(image), streets.render("source", 1, 0, SMALL)[0])


def test_an_interrupted_benchmark_is_completed(tmp_path, monkeypatch):
    def interrupted(picture):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("acclimate.data.streets.folders._draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            streets.write(tmp_path, source=1, target=1, val=1, size=SMALL)
    streets.write(tmp_path, source=1, target=1, val=1, size=SMALL)
    assert (tmp_path / "val/labels/0000.png").is_file()


def test_somebody_elses_folder_is_not_touched(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/precious.txt").write_text("keep")
    with pytest.raises(UserError, match=r"source: exists, but was not drawn by Acclimate.*another folder"):
        streets.write(tmp_path, source=1, target=1, val=1, size=SMALL)
    assert (tmp_path / "source/precious.txt").read_text() == "keep"


@pytest.mark.parametrize("bend", [-0.0006, 0.0, 0.0006])
@pytest.mark.parametrize("roll", [0.0, 0.05])
def test_rays_meet_the_ground_where_it_is_projected(bend, roll):
    camera = Camera(height=1.5, focal=100.0, centre=(80.0, 40.0), roll=roll, bend=bend)
    z = np.array([4.0, 9.0, 20.0])
    points = np.stack([[-1.0, 0.5, 2.0], camera.ground(z), z], 1)
    pixels = camera.project(points)
    size = (100, 160)
    ray_x, ray_y = camera.rays(size)
    depth = camera.ground_depth(ray_y)
    for (x, y, z_true), (px, py) in zip(points, pixels, strict=True):
        row, column = int(py), int(px)
        around = np.s_[max(row - 1, 0) : row + 2, column - 1 : column + 2]
        assert depth[around].min() <= z_true <= depth[around].max()
        sideways = ray_x[around] * depth[around]
        assert sideways.min() - 0.1 <= x <= sideways.max() + 0.1
        assert y == pytest.approx(bend * z_true**2)


def test_clipping_keeps_what_lies_beyond_the_near_plane():
    square = np.array([(0, 0, -1), (1, 0, -1), (1, 0, 5), (0, 0, 5)], float)
    clipped = clip_near(square)
    assert clipped[:, 2].min() == pytest.approx(NEAR)
    assert clipped[:, 2].max() == 5
    assert len(clip_near(square - np.array([0, 0, 9]))) == 0


def test_the_nearer_thing_hides_the_farther_in_either_order():
    camera = Camera(height=1.0, focal=60.0, centre=(40.0, 30.0), roll=0.0, bend=0.0)
    plates = [
        (z, Face(np.array([(-1, 0, z), (1, 0, z), (1, 2, z), (-1, 2, z)], float), (0.5, 0.5, 0.5), label))
        for z, label in ((5.0, Class.CAR), (9.0, Class.SIGN))
    ]
    drawn = []
    for order in (plates, plates[::-1]):
        canvas = Canvas((60, 80), camera, np.array([0.0, 1.0, 0.0]))
        for z, face in order:
            canvas.figure([face], z)
        drawn.append(canvas.label)
    np.testing.assert_array_equal(*drawn)
    assert drawn[0][30, 40] == Class.CAR


def test_gaps_show_what_lies_behind_and_still_count():
    camera = Camera(height=1.0, focal=60.0, centre=(40.0, 30.0), roll=0.0, bend=0.0)
    canvas = Canvas((60, 80), camera, np.array([0.0, 1.0, 0.0]))
    square = np.array([(-1, 0, 0), (1, 0, 0), (1, 2, 0), (-1, 2, 0)], float)
    canvas.figure([Face(square + np.array([0, 0, 9]), (1.0, 0.0, 0.0), Class.BUILDING)], 9.0)
    canvas.figure([Face(square + np.array([0, 0, 5]), None, Class.FENCE)], 5.0)
    assert canvas.label[30, 40] == Class.FENCE
    np.testing.assert_allclose(canvas.albedo[30, 40], (1, 0, 0))


def test_convex_hull():
    points = np.array([(0, 0), (2, 0), (2, 2), (0, 2), (1, 1), (1, 0.5)], float)
    assert sorted(convex_hull(points)) == [0, 1, 2, 3]
