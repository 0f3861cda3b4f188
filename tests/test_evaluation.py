"""Measuring: the confusion matrix against an oracle, and images from file to score by one exact path."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from acclimate import results
from acclimate.data.datasets import open_labelled
from acclimate.data.geometry import Grid
from acclimate.errors import UserError
from acclimate.evaluation import Confusion, Scores, evaluate, score_table
from acclimate.inference import Inference, forward_image, forward_images, pick_device, predict_labels, stretch
from acclimate.labels import IGNORE, label_space
from acclimate.recipe import Folder


def _pair(seed: int, classes: int, shape=(23, 31)) -> tuple[np.ndarray, np.ndarray]:
    """Labels with ignored pixels and without the last class; predictions that are right for about half."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, max(classes - 1, 1), shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, label, rng.integers(0, classes, shape)).astype(np.uint8)
    label[rng.random(shape) < 0.1] = IGNORE
    return label, prediction


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 21))
def test_scores_agree_with_torchmetrics(seed, classes):
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    label, prediction = _pair(seed, classes)
    confusion = Confusion(classes)
    confusion.update(label, prediction)
    args = (torch.from_numpy(prediction).long(), torch.from_numpy(label).long(), classes)
    expected = oracle.multiclass_confusion_matrix(*args, ignore_index=IGNORE)
    assert np.array_equal(confusion.matrix, expected.numpy())
    iou = oracle.multiclass_jaccard_index(*args, average="none", ignore_index=IGNORE)
    present = confusion.matrix.sum(0) + confusion.matrix.sum(1) > 0
    np.testing.assert_allclose(confusion.iou()[present], iou.numpy()[present], rtol=1e-5)
    assert np.isnan(confusion.iou()[~present]).all()


def test_images_one_by_one_are_the_same_as_all_at_once():
    pairs = [_pair(seed, 5) for seed in range(4)]
    one_by_one, merged, at_once = Confusion(5), Confusion(5), Confusion(5)
    for label, prediction in pairs:
        one_by_one.update(label, prediction)
        part = Confusion(5)
        part.update(torch.from_numpy(label), torch.from_numpy(prediction))
        merged.merge(part)
    at_once.update(*(np.stack(maps) for maps in zip(*pairs, strict=True)))
    assert np.array_equal(one_by_one.matrix, at_once.matrix)
    assert np.array_equal(merged.matrix, at_once.matrix)


def test_a_small_case_by_hand():
    confusion = Confusion(4)
    confusion.update(np.array([[0, 0, 1, IGNORE]]), np.array([[0, 1, 1, 3]]))
    np.testing.assert_allclose(confusion.iou(), [0.5, 0.5, math.nan, math.nan])
    assert confusion.mean_iou() == 0.5
    assert confusion.accuracy() == pytest.approx(2 / 3)
    assert confusion.mean_accuracy() == 0.75
    assert confusion.frequency_weighted_iou() == pytest.approx(0.5)


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = Confusion(3)
    confusion.update(np.array([0, 0]), np.array([0, 2]))
    np.testing.assert_allclose(confusion.iou(), [0.5, math.nan, 0])
    assert confusion.mean_iou() == 0.25


def test_nothing_measured_is_not_a_number():
    confusion = Confusion(3)
    confusion.update(np.full((2, 2), IGNORE), np.zeros((2, 2), int))
    scores = (confusion.mean_iou(), confusion.accuracy(), confusion.mean_accuracy(), confusion.frequency_weighted_iou())
    assert all(math.isnan(score) for score in scores)


@pytest.mark.parametrize(
    ("label", "prediction"), [([0, 3], [0, 0]), ([0, -1], [0, 0]), ([0, 0], [0, 255]), ([0, 0], [0])]
)
def test_ids_and_shapes_that_do_not_fit_are_refused(label, prediction):
    with pytest.raises(ValueError, match=r"outside 0 … 2|differ in shape"):
        Confusion(3).update(np.array(label), np.array(prediction))


def test_scores_become_json(rgb_space):
    confusion = Confusion(3)
    confusion.update(np.array([0, 0]), np.array([0, 1]))
    tree = json.loads(json.dumps(Scores.of(confusion, rgb_space, 1).to_dict(), allow_nan=False))
    assert list(tree["pixels"].values()) == confusion.matrix.sum(axis=1).tolist()
    assert tree["iou"] == {"red": 0.5, "green": 0.0, "blue": None}
    assert tree["mean_iou"] == 0.25
    assert tree["images"] == 1
    assert tree["subsets"] == {}


def test_the_table_has_all_classes_models_and_means(rgb_space):
    confusion = Confusion(3)
    confusion.update(np.array([0, 0, 0]), np.array([0, 0, 1]))
    scores = Scores.of(confusion, rgb_space, 1)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(score_table({"before": scores, "after": scores}))
    text = console.export_text()
    for word in ("before", "after", "red", "66.7", "blue", "–", "mean", "33.3"):
        assert word in text


def test_tables_of_a_run_show_the_means_over_fewer_classes():
    space = label_space("cityscapes16")
    confusion = Confusion(16)
    confusion.update(np.arange(16), np.where(np.arange(16) < 8, np.arange(16), 15))
    record = {"title": "stage 1", "iterations": 10, "minutes": 1.0}
    row = {**record, **Scores.of(confusion, space, 1).to_dict()}
    older = {key: value for key, value in row.items() if key != "subsets"}
    lines = results.markdown([row, older]).splitlines()
    assert "| mIoU | 50.8 | 50.8 |" in lines
    assert "| mean of 13 | 39.4 | – |" in lines
    assert "mean of 13" not in results.markdown([older])


# From an image to label ids


@given(height=st.integers(8, 70), width=st.integers(8, 70), at=st.sampled_from([32, 37, 64]), seed=st.integers(0, 99))
def test_every_size_of_image_gets_labels_of_its_own_size(brightest_class, height, width, at, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    network = brightest_class()
    label = predict_labels(network, image, at)
    assert label.shape == (height, width)
    assert label.dtype == np.uint8
    assert label.max() < 3
    assert min(network.batches[0][2:]) >= 32


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (60, 230), (33, 45)])
def test_labels_lie_where_the_image_has_them(brightest, blocks, size):
    image, truth = blocks(*size)
    label = predict_labels(brightest, image, 128)
    wrong = label != truth
    assert wrong.mean() < 0.12, "only cells at the blocks' borders may be wrong"
    border = np.zeros(size, bool)
    reach = int(np.ceil(1.5 * brightest.stride * size[1] / 128)) + 1
    for axis in (0, 1):
        for shift in range(-reach, reach + 1):
            border |= np.roll(truth, shift, axis) != truth
    assert not (wrong & ~border).any()


def test_stretching_keeps_continuous_coordinates():
    """A ramp over the image stays the same ramp, also where the last cell reaches beyond the image."""
    for scaled, stride, size in ((37, 4, 111), (40, 4, 20), (33, 8, 47), (7, 3, 7)):
        count = -(-scaled // stride)
        ramp = (torch.arange(count) + 0.5) * stride  # position in the scaled image
        maps = ramp.expand(1, count, count)
        out = stretch(maps, (scaled, scaled), Grid(stride), (size, size))
        expected = ((torch.arange(size) + 0.5) * scaled / size).clamp(ramp[0], ramp[-1])
        assert out.shape == (1, size, size)
        torch.testing.assert_close(out[0, 0], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(out[0, :, 0], out[0, 0].new_full((size,), float(expected[0])), atol=1e-4, rtol=0)


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_and_features_lie_at_the_stride(brightest, blocks, flip):
    image, _ = blocks(50, 75)
    prob, feat = forward_image(brightest, image, 150, flip)  # scaled to 100x150: 25 x 38 cells, the last one cut
    assert prob.shape == (3, 25, 38)
    assert feat.shape == (3, 25, 38)
    torch.testing.assert_close(prob.sum(0), torch.ones(25, 38))


def test_flip_averaging_changes_nothing_for_a_network_without_a_side(brightest, blocks):
    """Cells of the mirrored image must come to lie on the same pixels, whatever the width."""
    for width in (128, 129, 130, 131):
        image, _ = blocks(60, 90, seed=width)
        straight, _ = forward_image(brightest, image, width)
        averaged, _ = forward_image(brightest, image, width, flip=True)
        torch.testing.assert_close(averaged, straight)


def test_images_of_one_size_share_a_batch_and_order_is_kept(brightest, blocks):
    images = [blocks(40, 60, 1)[0], blocks(80, 120, 2)[0], blocks(60, 60, 3)[0], blocks(40, 60, 4)[0]]
    logits = list(forward_images(brightest, images, 60))
    assert [shape[0] for shape in brightest.batches] == [2, 1, 1]
    for image, logits_KHW in zip(images, logits, strict=True):
        assert logits_KHW.shape[1:] == image.shape[:2]
        assert np.array_equal(logits_KHW.argmax(0).numpy(), predict_labels(brightest, image, 60))


def test_a_network_in_training_goes_on_training(brightest, blocks):
    brightest.train()
    predict_labels(brightest, blocks(40, 60)[0], 60)
    assert brightest.training
    assert brightest.gain.grad is None


def test_evaluation_reads_files_and_predicts_at_their_own_size(tmp_path, brightest, blocks, rgb_space):
    truth, images = [], []
    for number, size in enumerate([(96, 128), (96, 128), (100, 80), (96, 128), (60, 128)]):
        image, label = blocks(*size, seed=number)
        label = label.copy()
        label[:5] = IGNORE
        for folder, array in (("images", image), ("labels", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{number}.png")
        images.append(image)
        truth.append(label)
    folder = Folder(path=str(tmp_path / "images"), labels=str(tmp_path / "labels"))
    for how in (Inference(), Inference(scales=(0.5, 1), flip=True)):
        scores = evaluate(brightest, open_labelled(folder, "val", rgb_space), rgb_space, 128, how, batch=2)
        expected = Confusion(3)
        for image, label in zip(images, truth, strict=True):
            expected.update(label, predict_labels(brightest, image, 128, how))
        assert scores == Scores.of(expected, rgb_space, 5)
        assert scores.mean_iou > 0.8


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="'cuda:99' cannot be used"):
        pick_device("cuda:99")
    with pytest.raises(UserError, match="'toaster' cannot be used"):
        pick_device("toaster")


@pytest.mark.cuda
def test_a_gpu_predicts_what_a_cpu_predicts(brightest, blocks):
    image, _ = blocks(97, 131)
    on_cpu = predict_labels(brightest, image, 128)
    assert (predict_labels(brightest.cuda(), image, 128) == on_cpu).mean() > 0.999
