"""`acclimate.selflabel` in a loop that is not ours: examples/plugin.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin.py"
CLASSES = 4


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plugin", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Domain(NamedTuple):
    images_NCHW: Tensor
    labels_NHW: Tensor


def domain(count: int, seed: int, shifted: bool) -> Domain:
    """Pixels of four colours, one of them rare; in the other domain all light is bluer, which confuses some."""
    random = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    labels_NHW = torch.multinomial(shares, count * 256, replacement=True, generator=random).view(count, 16, 16)
    colours_KC = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.2, 0.3, 0.8], [0.8, 0.8, 0.2]])
    if shifted:
        colours_KC = colours_KC + torch.tensor([0.0, -0.2, 0.2])
    noise = (0.08 if shifted else 0.12) * torch.randn(count, 3, 16, 16, generator=random)
    return Domain(colours_KC[labels_NHW].permute(0, 3, 1, 2) + noise, labels_NHW)


class Small(nn.Module):
    """A network that looks at each pixel alone: it learns this in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.classifier = nn.Conv2d(8, CLASSES, 1)


def see(model: Small, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    feat_BDhw = model.features(image_BCHW)
    return model.classifier(feat_BDhw), feat_BDhw


def test_prototypes_learn_and_labels_are_corrected(plugin: ModuleType) -> None:
    (*source,), target = domain(24, 0, shifted=False), domain(24, 1, shifted=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small()
        plugin.warm_up(model, see, source, steps=100, batch=8, lr=1e-2)
        before = plugin.SelfLabelling(see, model, target.images_NCHW)
        adapted, ours = plugin.train(model, see, source, target.images_NCHW, steps=80, batch=8)
    with torch.no_grad():
        logits_NKHW, feat_NDHW = see(adapted, target.images_NCHW)
    stored_NHW, found_NHW = before.soft_NKhw.argmax(1), logits_NKHW.argmax(1)
    corrected_NHW = ours.correct(slice(None), feat_NDHW)
    wrong = stored_NHW != target.labels_NHW
    assert wrong.float().mean() > 0.05, "the model of the source should err on the target"
    assert (corrected_NHW == target.labels_NHW)[wrong].float().mean() > 0.5
    assert (corrected_NHW == target.labels_NHW)[~wrong].float().mean() > 0.98
    assert (found_NHW == target.labels_NHW).float().mean() > 1 - 0.6 * wrong.float().mean(), "the model has learned it"
    turned_K = 1 - F.cosine_similarity(before.prototypes.weight_KD, ours.prototypes.weight_KD)
    assert (turned_K > 1e-4).all(), "every prototype has moved"
    means_KD = torch.stack([feat_NDHW.transpose(0, 1)[:, target.labels_NHW == k].mean(1) for k in range(CLASSES)])
    nearness_KK = plugin.cpsl.similarity(means_KD, ours.prototypes.average_KD)
    assert nearness_KK.argmax(1).tolist() == list(range(CLASSES)), "and is nearest to its own class in the target"
    assert len(ours.bank) == 16384 and ours.distribution_K.sum() == pytest.approx(1, abs=1e-4)


def folders(root: Path) -> None:
    for name, shifted in (("renders", False), ("photos", True)):
        images_NCHW, labels_NHW = domain(4, 0, shifted)
        for number, (image_CHW, label_HW) in enumerate(zip(images_NCHW, labels_NHW, strict=True)):
            image = root / name / ("images" if name == "renders" else "") / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * image_CHW.clamp(0, 1).permute(1, 2, 0)).byte().numpy()).save(image)
            if name == "renders":
                (root / name / "labels").mkdir(exist_ok=True)
                Image.fromarray(label_HW.numpy().astype(np.uint8)).save(root / name / "labels" / f"{number}.png")
    (root / "classes.yaml").write_text("0: red\n1: green\n2: blue\n3: yellow\n", encoding="utf-8")


def test_the_example_runs_on_folders_with_a_network_of_torchvision(
    plugin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugin, "SIZE", (64, 32))
    with torch.random.fork_rng(devices=[]):
        plugin.main("renders", "photos", "classes.yaml", 2)
    said = capsys.readouterr().out
    assert all(name in said for name in ("red", "green", "blue", "yellow"))
    again = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    assert again.load_state_dict(torch.load("adapted.pt", weights_only=True))


def test_what_is_added_to_a_loop_is_about_forty_lines() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    added = text[text.index("def see(") : text.index("def train(")]
    code = [line for line in added.splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 40


def test_segmentation_models_pytorch_as_the_page_says(plugin: ModuleType) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    page = (EXAMPLE.parents[1] / "docs" / "plugin.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    exec(page.partition("<!-- smp -->\n```python\n")[2].partition("```")[0], scope)
    source, target = (
        Domain(F.interpolate(images_NCHW, (64, 64)), labels_NHW)
        for images_NCHW, labels_NHW in (domain(4, 0, shifted=False), domain(4, 1, shifted=True))
    )
    with torch.random.fork_rng(devices=[]):
        model = smp.Unet("mobilenet_v2", encoder_weights=None, classes=CLASSES)
        _, ours = plugin.train(model, scope["see"], source, target.images_NCHW, steps=2, batch=2)
    assert len(ours.bank) > 0 and torch.isfinite(ours.prototypes.weight_KD).all()
