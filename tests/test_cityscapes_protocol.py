"""Scores and server files against the benchmark's own script, `cityscapesscripts`."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels as official_labels
from cityscapesscripts.helpers.labels import trainId2label
from PIL import Image
from torch import nn

from acclimate import cli
from acclimate.data.geometry import Grid
from acclimate.errors import UserError
from acclimate.evaluation import Confusion, Scores, score_table
from acclimate.label_tables import ID_SCHEMES
from acclimate.labels import label_space, label_table
from acclimate.prediction import Model
from acclimate.recipe import Folder
from acclimate.server import label_ids, write_server_files

SPACE = label_space("cityscapes19")
IDS = [trainId2label[i].id for i in range(19)]


@pytest.fixture
def script(tmp_path):
    """The official script's settings, as it comes, but silent, without files of its own and without instances."""
    args = copy.copy(official.args)
    args.quiet, args.JSONOutput, args.evalInstLevelScore = True, False, False
    args.predictionPath, args.predictionWalk = str(tmp_path / "results"), None
    return args


def _save(array: np.ndarray, path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return str(path)


def _pair(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw label ids with every kind of void, and predicted train ids, right for about half; some classes absent."""
    rng = np.random.default_rng(seed)
    present = rng.choice(19, classes, replace=False)
    truth = rng.choice(present, (37, 53))
    prediction = np.where(rng.random(truth.shape) < 0.5, truth, rng.choice(present, truth.shape)).astype(np.uint8)
    void = [label.id for label in official_labels if label.id >= 0 and label.ignoreInEval]
    raw = np.where(rng.random(truth.shape) < 0.2, rng.choice(void, truth.shape), np.array(IDS)[truth])
    return raw.astype(np.uint8), prediction


# Scores


def test_ids_are_the_official_ones():
    assert label_ids(SPACE).tolist() == IDS
    assert label_ids(label_space("cityscapes16")).tolist() == [
        i for i in IDS if ID_SCHEMES["cityscapes"][i] not in ("terrain", "truck", "train")
    ]
    assert {label.id: label.name for label in official_labels if label.id >= 0}.items() <= {
        **ID_SCHEMES["cityscapes"]
    }.items()


@pytest.mark.parametrize(("seed", "classes"), [(0, 19), (1, 19), (2, 11), (3, 4), (4, 1)])
def test_the_confusion_matrix_is_the_official_one(script, tmp_path, seed, classes):
    ours, predictions, truths = Confusion(19), [], []
    for number in range(3):
        raw, prediction = _pair(10 * seed + number, classes)
        truths.append(_save(raw, tmp_path / f"{number}_gtFine_labelIds.png"))
        predictions.append(_save(label_ids(SPACE)[prediction], tmp_path / f"{number}_pred.png"))
        raw[raw == 0] = 255  # license plates, which the script's own files don't hold: void, too
        ours.update(label_table(SPACE, "cityscapes").encode(raw, tmp_path), prediction)
    theirs = official.evaluateImgLists(predictions, truths, script)

    matrix = np.array(theirs["confMatrix"])
    assert np.array_equal(ours.matrix, matrix[np.ix_(IDS, IDS)])
    assert ours.matrix.sum() == matrix[IDS].sum(), "no labelled pixel is left out"
    scores = Scores.of(ours, SPACE, 3)
    for name, iou in zip(SPACE.classes, scores.iou, strict=True):
        expected = theirs["classScores"][name]
        assert iou == expected or (math.isnan(iou) and math.isnan(expected)), name
    assert f"{scores.mean_iou:.3f}" == f"{theirs['averageScoreClasses']:.3f}"
    assert scores.mean_iou == pytest.approx(theirs["averageScoreClasses"], abs=1e-15)


def test_the_literatures_means_are_over_fewer_of_the_same_classes():
    confusion = Confusion(19)
    raw, prediction = _pair(5, 19)
    confusion.update(label_table(SPACE, "cityscapes").encode(raw, "x.png"), prediction)
    confusion.matrix[5], confusion.matrix[:, 5] = 0, 0  # no poles at all: left out of the means
    scores = Scores.of(confusion, SPACE, 1)
    iou = dict(zip(SPACE.classes, scores.iou, strict=True))
    del iou["pole"]
    sixteen = [value for name, value in iou.items() if name not in ("terrain", "truck", "train")]
    thirteen = [value for name, value in iou.items() if name in label_space("cityscapes13").classes]
    assert (len(sixteen), len(thirteen)) == (15, 13)
    assert scores.subsets == pytest.approx({"cityscapes16": np.mean(sixteen), "cityscapes13": np.mean(thirteen)})
    assert scores.to_dict()["subsets"] == scores.subsets
    rows = [str(cell) for cell in score_table({"model": scores}).columns[0].cells]
    assert rows[-3:] == ["mean", "mean of 16", "mean of 13"]


@pytest.mark.parametrize(
    ("space", "means"),
    [("cityscapes16", ["cityscapes13"]), ("cityscapes13", []), ("camvid11", []), ("streets", [])],
)
def test_only_larger_spaces_of_the_family_have_such_means(space, means):
    space = label_space(space)
    assert list(Scores.of(Confusion(len(space)), space, 0).subsets) == means


# Server files


class Shades(nn.Module):
    """Tells classes by the image's brightness: class k is grey level 10 k + 5."""

    grid = Grid(4)
    stride = 4

    def __init__(self, classes: int):
        super().__init__()
        self.num_classes = classes
        self.shade = nn.Parameter(torch.arange(classes) * 10.0 + 5)

    def forward(self, image_BCHW):
        grey_B1hw = 255 * nn.functional.avg_pool2d(image_BCHW[:, :1], 4)
        return -((grey_B1hw - self.shade.view(1, -1, 1, 1)) ** 2), grey_B1hw


@pytest.fixture
def model() -> Model:
    return Model(Shades(19), SPACE, 256)


@pytest.fixture
def downloaded(tmp_path):
    """Two images in the layout of Cityscapes, and labels that are right but for a strip and void."""
    for seed, name in enumerate(("berlin/berlin_000000_000019", "bad-honnef/bad-honnef_000001_012345")):
        coarse = np.random.default_rng(seed).integers(0, 19, (4, 8), dtype=np.uint8)
        truth = np.asarray(Image.fromarray(coarse).resize((2048, 1024), Image.Resampling.NEAREST))
        image = np.repeat((truth * 10 + 5)[..., None], 3, axis=2)
        _save(image, tmp_path / "leftImg8bit" / "test" / f"{name}_leftImg8bit.png")
        raw = np.array(IDS, np.uint8)[truth]
        raw[:, :50], raw[:100] = 7, 3
        _save(raw, tmp_path / "gtFine" / "test" / f"{name}_gtFine_labelIds.png")
    return tmp_path


def test_the_official_script_finds_server_files_and_scores_them_alike(model, downloaded, script):
    files = write_server_files(model, downloaded, downloaded / "results")
    assert [file.name for file in files] == [
        "bad-honnef_000001_012345_labelIds.png",
        "berlin_000000_000019_labelIds.png",
    ]
    for file in files:
        with Image.open(file) as opened:
            assert (opened.format, opened.mode, opened.size) == ("PNG", "L", (2048, 1024))
    truths = [str(path) for path in sorted((downloaded / "gtFine").rglob("*_labelIds.png"))]
    found = [official.getPrediction(script, truth) for truth in truths]
    assert found == [str(file) for file in files]

    theirs = official.evaluateImgLists(found, truths, script)
    ours = model.evaluate(Folder(str(downloaded), "cityscapes", "test"))
    for name, iou in zip(ours.classes, ours.iou, strict=True):
        assert iou == pytest.approx(theirs["classScores"][name], abs=1e-15, nan_ok=True), name
    assert ours.mean_iou == pytest.approx(theirs["averageScoreClasses"], abs=1e-15)
    assert 0.5 < ours.mean_iou < 1


def test_the_folder_of_a_split_will_do(model, downloaded):
    (file,) = write_server_files(model, downloaded / "leftImg8bit" / "test" / "berlin", downloaded / "results")
    assert file.name.startswith("berlin")


def test_a_smaller_space_is_written_in_the_same_ids(downloaded):
    sixteen = Model(Shades(16), label_space("cityscapes16"), 128)
    (file,) = write_server_files(sixteen, downloaded / "leftImg8bit" / "test" / "berlin", downloaded / "results")
    assert set(np.unique(np.asarray(Image.open(file)))) <= set(label_ids(sixteen.space).tolist())


def _refused(model, data, out, message):
    with pytest.raises(UserError, match=message):
        write_server_files(model, data, out)
    assert not out.exists() or not list(out.rglob("*labelIds.png"))


@pytest.mark.parametrize(
    "name", ["photo", "berlin_000000_000019", "berlin_000000_000019_gtFine_color", "berlin_0_19_leftImg8bit",
             "berlin_000000_000019_leftImg8bit_foggy_beta_0.01"],
)  # fmt: skip
def test_images_of_other_names_are_refused(model, downloaded, name):
    _save(np.zeros((1024, 2048, 3), np.uint8), downloaded / "leftImg8bit" / "test" / "berlin" / f"{name}.png")
    _refused(model, downloaded, downloaded / "results", f"only knows images named CITY_(.|\n)*{name}.png")


def test_images_of_another_size_are_refused(model, downloaded):
    small = downloaded / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000020_leftImg8bit.png"
    _save(np.zeros((512, 1024, 3), np.uint8), small)
    _refused(model, downloaded, downloaded / "results", "compares at 2048x1024(.|\n)*000020_leftImg8bit.png: 1024x512")


def test_models_of_other_classes_are_refused(downloaded):
    streets = Model(Shades(12), label_space("streets"), 128)
    _refused(streets, downloaded, downloaded / "results", "does not know pavement, sign, cyclist")


def test_files_that_the_server_would_mistake_for_results_are_refused(model, downloaded):
    _save(np.zeros((4, 4), np.uint8), downloaded / "results" / "old" / "berlin_000000_000019.png")
    _refused(model, downloaded, downloaded / "results", "take these files in(.|\n)*old/berlin_000000_000019.png")


def test_a_data_set_without_test_images_is_refused(model, downloaded):
    (downloaded / "leftImg8bit" / "test").rename(downloaded / "leftImg8bit" / "val")
    for data in (downloaded, downloaded / "leftImg8bit"):
        _refused(model, data, downloaded / "results", "test: no such folder; download the test images")


def test_the_command_line_writes_server_files(model, downloaded, monkeypatch, capsys):
    monkeypatch.setattr("acclimate.prediction.load", lambda *_: model)
    words = ["predict", "run", str(downloaded), "--cityscapes-server", "--out", str(downloaded / "results")]
    assert cli.main([*words, "--overlay"]) == 2
    assert "writes label ids alone" in capsys.readouterr().err
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2 files in")
    assert "all 1525 test images" in err
    assert cli.main(words) == 0
    assert "2 of 2 masks are there already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
