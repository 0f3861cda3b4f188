"""Models for use without Acclimate: files that do as the model does, at all sizes, and say what they are."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import acclimate
from acclimate import cli, exporting, recipe
from acclimate.errors import UserError
from acclimate.exporting import Deployed, Parity, export
from acclimate.inference import forward_images
from acclimate.networks import build, deeplab
from acclimate.networks.weights import save_model
from acclimate.prediction import Model, load

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_predict.py"
SIZES = [(1, 33, 45), (3, 64, 96), (2, 97, 130)]
"""Batch, height and width, none of them those that the network is traced at; with and without filling up."""

with_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, exporting.ONNX_PACKAGES)), reason="needs the extra `onnx`"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, (height, width) in enumerate([(60, 90), (75, 70), (56, 96)]):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, photos, rgb_space):
    """A run as far as `export` is concerned: the network of recipe `laptop` as it starts, and its target images."""
    folder = tmp_path_factory.mktemp("run")
    choices = recipe.load("laptop").network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(choices, 3)
    save_model(folder / "model.safetensors", network, rgb_space, network.choices, {"width": 80})
    told = recipe.load("laptop", [f"data.target.path={photos}", "data.source.path=none"])
    (folder / "recipe.yaml").write_text(recipe.to_yaml(told))
    return folder


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, run_folder):
    """Written by the command line."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert cli.main(["export", str(run_folder), str(out)]) == 0
    return out


def noise(batch, height, width):
    return np.random.default_rng(height).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def expected(network, images):
    """Logits of uint8 images B×H×W×3 of any size, on the path that prediction takes."""
    found = [next(forward_images(network, [image], image.shape[1])) for image in images]
    return torch.stack(found).numpy()


def session(file):
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def agree(logits, labels, truth):
    np.testing.assert_allclose(logits, truth, atol=1e-4 * max(1, np.abs(truth).max()))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, logits.argmax(1))


@with_onnx
@pytest.mark.slow
def test_onnx_does_as_the_model_does_at_other_sizes(onnx_file, run_folder):
    network, ran = load(run_folder, "cpu").network, session(onnx_file)
    for size in SIZES:
        images = noise(*size)
        labels, logits = ran.run(["labels", "logits"], {"image": images})
        agree(logits, labels, expected(network, images))


@with_onnx
@pytest.mark.slow
def test_onnx_says_what_it_is(onnx_file, run_folder, rgb_space):
    import onnx

    onnx.checker.check_model(onnx.load(onnx_file))
    ran, network = session(onnx_file), load(run_folder, "cpu").network
    shapes = {value.name: (value.type, value.shape) for value in (*ran.get_inputs(), *ran.get_outputs())}
    assert shapes == {
        "image": ("tensor(uint8)", ["batch", "height", "width", 3]),
        "labels": ("tensor(uint8)", ["batch", "height", "width"]),
        "logits": ("tensor(float)", ["batch", 3, "height", "width"]),
    }
    about = ran.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(rgb_space.classes)
    assert json.loads(about["colours"]) == [list(colour) for colour in rgb_space.colours]
    assert int(about["width"]) == 80
    inside = json.loads(about["inside"])
    assert inside["mean"] == network.mean.flatten().tolist()
    assert inside["std"] == network.std.flatten().tolist()


@with_onnx
@pytest.mark.slow
def test_the_example_needs_no_torch(onnx_file, run_folder, photos, tmp_path):
    for name in ("torch", "acclimate", "timm"):  # found first, and cannot be imported
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    photo, mask = photos / "1.png", tmp_path / "mask.png"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(onnx_file), str(photo), str(mask)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "green" in done.stdout
    model = load(run_folder, "cpu")
    with Image.open(mask) as written:
        assert (written.mode, written.size) == ("P", (70, 75))
        assert written.getpalette()[:9] == [v for colour in model.space.colours for v in colour]
        assert (np.asarray(written) == model.predict(photo)).mean() > 0.95


@pytest.mark.slow
def test_a_torch_program_does_as_the_model_does(run_folder, tmp_path):
    out = tmp_path / "model.pt2"
    parity = acclimate.export(load(run_folder, "cpu"), out, images=exported_from(run_folder))
    assert parity.images == 3
    assert parity.agreement > 0.999
    extra = {exporting.METADATA: ""}
    program = torch.export.load(io.BytesIO(out.read_bytes()), extra_files=extra).module()
    assert json.loads(extra[exporting.METADATA])["classes"] == ["red", "green", "blue"]
    network = load(run_folder, "cpu").network
    for size in SIZES:
        images = noise(*size)
        labels, logits = program(torch.from_numpy(images))
        agree(logits.detach().numpy(), labels.numpy(), expected(network, images))


def exported_from(run_folder):
    return recipe.load(run_folder / "recipe.yaml").data.target.path


@with_onnx
@pytest.mark.slow
def test_the_papers_network_is_exported(tmp_path, photos, rgb_space, monkeypatch):
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(recipe.Network(architecture="deeplab", weights="none"), 3).eval()
    parity = export(Model(network, rgb_space, 96), tmp_path / "model.onnx", photos)
    assert parity.images == 3
    assert parity.agreement > 0.999
    for size in SIZES:
        images = noise(*size)
        labels, logits = session(tmp_path / "model.onnx").run(["labels", "logits"], {"image": images})
        agree(logits, labels, expected(network, images))


@pytest.mark.parametrize("architecture", ["light", "deeplab"])
def test_what_is_exported_is_what_prediction_does(architecture, monkeypatch, trained, rgb_space):
    """Before any exporter: the same network, surrounded by other code."""
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        deep = build(recipe.Network(architecture="deeplab", weights="none"), 3).eval()
    network = load(trained, "cpu").network if architecture == "light" else deep
    for size in SIZES:
        images = noise(*size)
        with torch.no_grad():
            labels, logits = Deployed(network)(torch.from_numpy(images))
        agree(logits.numpy(), labels.numpy(), expected(network, images))
    assert network.layout is torch.channels_last, "the model itself is left as it was"


# What is refused


@pytest.fixture
def quick(monkeypatch):
    """An exporter that takes no time, and whose program finds class 0 everywhere."""

    def make(program, metadata):
        def run(image):
            return np.zeros(image.shape[:3], np.uint8), np.zeros((1, 3, *image.shape[1:3]), np.float32)

        return b"program", run

    monkeypatch.setattr(exporting, "_program", lambda deployed: None)
    monkeypatch.setattr(exporting, "_pt2", make)


def test_a_file_that_disagrees_is_not_written(quick, trained, photos, tmp_path):
    with pytest.raises(UserError, match=r"not written, because (.|\n)* on 3 images: .* % of the labels are the same"):
        export(trained, tmp_path / "model.pt2", photos)
    assert not list(tmp_path.iterdir())


def test_a_file_that_agrees_is_written(quick, trained, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LEAST_AGREEMENT", 0)
    out = tmp_path / "model.pt2"
    assert export(trained, out, photos).images == 3
    assert out.read_bytes() == b"program"
    with pytest.raises(UserError, match="exists; choose another name or allow --overwrite"):
        export(trained, out, photos)
    export(trained, out, photos, overwrite=True)


def test_parity_is_told_in_one_line():
    line = str(Parity(20, 3.1e-5, 17.25, 0.999996))
    assert line == "logits differ by at most 3.1e-05 (the largest is 17.2), 99.9996 % of the labels are the same"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "model.tflite"}, r"model\.tflite: expected a name that ends in \.onnx or \.pt2"),
        ({"images": None}, r"no run folder, so the images .* are not known; give --images"),
        ({"images": "nowhere"}, r"nowhere: no such folder"),
        ({"model": "nothing.safetensors"}, r"nothing\.safetensors: no such model"),
        ({"width": 32}, r"no image has sides of 33 pixels at width 32"),
    ],
)
def test_what_cannot_be_exported_is_named(quick, trained, photos, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    given = {"model": trained, "out": "model.pt2", "images": photos, **change}
    with pytest.raises(UserError, match=message):
        export(**given)
    assert not list(tmp_path.iterdir())


def test_target_images_that_are_gone_are_named(quick, run_folder, tmp_path):
    text = (run_folder / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text.replace(exported_from(run_folder), "gone"))
    with pytest.raises(UserError, match=r"gone: no such folder(.|\n)*give --images"):
        export(tmp_path, tmp_path / "model.pt2")


def test_missing_packages_are_named(monkeypatch, trained, photos, tmp_path):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime; pip install 'acclimate\[onnx\]'"):
        export(trained, tmp_path / "model.onnx", photos)


def test_what_the_exporter_cannot_follow_is_one_message(monkeypatch, trained, photos, tmp_path):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: (_ for _ in ()).throw(AssertionError("no\nway")))
    with pytest.raises(UserError, match=r"^PyTorch cannot export this network \(no\); "):
        export(trained, tmp_path / "model.pt2", photos)
