"""Using a model: any form of image in, a label map out; folders of photos become folders of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import acclimate
from acclimate import pictures, prediction
from acclimate.data.decode import read_image
from acclimate.errors import UserError
from acclimate.inference import predict_labels
from acclimate.labels import IGNORE, label_space
from acclimate.prediction import Model, evaluate_on, load, predict_files, to_rgb


@pytest.fixture
def model(brightest, rgb_space) -> Model:
    return Model(brightest, rgb_space, 128)


@pytest.fixture
def photos(tmp_path, blocks):
    """Three photos, two of them in sub-folders, and a file that is none."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "town/b.jpg", "town/north/c.d.PNG")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks(60, 90, number)[0]).save(folder / name, quality=95)
    (folder / "notes.txt").write_text("not a photo")
    return folder


def test_all_forms_of_an_image_give_the_same_labels(model, blocks, tmp_path):
    image, _ = blocks(60, 90)
    Image.fromarray(image).save(tmp_path / "photo.png")
    chw = torch.from_numpy(image.copy()).permute(2, 0, 1)
    expected = predict_labels(model.network, image, model.width)
    forms = (str(tmp_path / "photo.png"), tmp_path / "photo.png", Image.fromarray(image), image, chw, chw.float() / 255)
    for form in forms:
        label = model.predict(form)
        assert label.dtype == np.uint8
        assert np.array_equal(label, expected), type(form)


def test_probabilities_agree_with_labels(model, blocks):
    image, _ = blocks(50, 75)
    probabilities = model.probabilities(image)
    assert probabilities.shape == (3, 50, 75)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(0), model.predict(image))


def test_a_model_looks_as_it_is_told(trained, blocks):
    image, _ = blocks(50, 75)
    plain = acclimate.load(trained)
    told = acclimate.load(trained, width=96, how=acclimate.Inference(scales=(1, 1.25), flip=True, window=(40, 64)))
    assert (plain.width, told.width) == (64, 96)
    assert np.abs(told.probabilities(image) - plain.probabilities(image)).max() > 1e-4
    np.testing.assert_allclose(told.probabilities(image).sum(0), 1, atol=1e-5)
    assert np.array_equal(told.probabilities(image).argmax(0), told.predict(image))
    with pytest.raises(UserError, match="width: expected at least 32 pixels, found 0"):
        acclimate.load(trained, width=0)


def test_grey_images_become_rgb():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for form in (grey, Image.fromarray(grey), torch.from_numpy(grey)):
        assert np.array_equal(to_rgb(form), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3)),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.full((3, 4, 4), 128.0),
        torch.zeros(1, 3, 4, 4),
        Image.new("F", (4, 4)),
        None,
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match=r"not an image: expected|no known range"):
        to_rgb(image)


def test_photos_lie_the_way_their_camera_was_held(model, blocks, tmp_path):
    image, _ = blocks(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        from_pil = model.predict(opened)
    assert from_pil.shape == (90, 60)
    assert np.array_equal(model.predict(tmp_path / "turned.png"), from_pil)
    (mask,) = predict_files(model, tmp_path / "turned.png", tmp_path / "out")
    assert Image.open(mask).size == (60, 90)


def test_masks_keep_sub_folders_ids_and_colours(model, photos, tmp_path):
    masks = predict_files(model, [photos], tmp_path / "out")
    assert [str(m.relative_to(tmp_path / "out")) for m in masks] == ["a.png", "town/b.png", "town/north/c.d.png"]
    with Image.open(masks[0]) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), model.predict(photos / "a.png"))
        assert mask.getpalette()[:9] == [v for colour in model.space.colours for v in colour]
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.png", "b.png", "c.d.png"]


def test_overlays_on_request(model, photos, tmp_path):
    predict_files(model, [photos / "a.png", photos / "town" / "north"], tmp_path / "out", overlay=True)
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["a.overlay.jpg", "a.png", "c.d.overlay.jpg", "c.d.png"]
    with Image.open(tmp_path / "out" / "a.overlay.jpg") as overlay:
        assert overlay.size == (90, 60)


def test_nothing_is_overwritten_unless_allowed(model, photos, tmp_path, caplog):
    out = tmp_path / "out"
    (out / "town").mkdir(parents=True)
    (out / "town" / "b.png").write_bytes(b"mine")
    with caplog.at_level("INFO", "acclimate"):
        masks = predict_files(model, photos, out, overlay=True)
    assert (out / "town" / "b.png").read_bytes() == b"mine"
    assert (out / "town" / "b.overlay.jpg").is_file(), "what was missing is there now"
    assert "are there already" not in caplog.text
    assert len(masks) == 3
    assert predict_files(model, photos, out, overwrite=True) == masks
    assert Image.open(out / "town" / "b.png").mode == "P"


def test_the_same_call_goes_on_where_it_stopped(model, photos, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    first = predict_files(model, photos / "a.png", out)
    before = first[0].stat().st_mtime_ns
    monkeypatch.setattr(prediction, "read_image", lambda path: done.append(path.name) or read_image(path))
    done = []
    with caplog.at_level("INFO", "acclimate"):
        masks = predict_files(model, photos, out)
    assert sorted(done) == ["b.jpg", "c.d.PNG"]
    assert "1 of 3 masks are there already and stay as they are" in caplog.text
    assert [mask.name for mask in masks] == ["a.png", "b.png", "c.d.png"]
    assert first[0].stat().st_mtime_ns == before
    assert predict_files(model, photos, out) == masks
    assert len(done) == 2, "there was nothing left to do"


def test_probabilities_on_request(model, photos, tmp_path):
    predict_files(model, photos / "a.png", tmp_path, probabilities=True)
    with np.load(tmp_path / "a.npz") as file:
        assert file["classes"].tolist() == ["red", "green", "blue"]
        found = file["probabilities"]
    assert found.dtype == np.uint8
    expected = model.probabilities(photos / "a.png")
    assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-6
    how = acclimate.Inference((0.8, 1.25), flip=True)
    predict_files(Model(model.network, model.space, 128, how), photos / "a.png", tmp_path / "more", probabilities=True)
    with np.load(tmp_path / "more" / "a.npz") as file:
        expected = Model(model.network, model.space, 128, how).probabilities(photos / "a.png")
        assert np.abs(file["probabilities"] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_frames_come_in_their_order_and_keep_their_names(model, blocks, tmp_path):
    (tmp_path / "video").mkdir()
    for number in (1, 2, 10, 11):
        Image.fromarray(blocks(40, 60, number)[0]).save(tmp_path / "video" / f"frame{number}.png")
    masks = predict_files(model, tmp_path / "video", tmp_path / "out", batch=3)
    assert [mask.name for mask in masks] == [f"frame{number}.png" for number in (1, 2, 10, 11)]
    assert [batch[0] for batch in model.network.batches] == [3, 1], "three together, then the rest"
    for number, mask in zip((1, 2, 10, 11), masks, strict=True):
        assert np.array_equal(np.asarray(Image.open(mask)), model.predict(tmp_path / "video" / f"frame{number}.png"))
    with pytest.raises(UserError, match="batch: expected at least 1 image, found 0"):
        predict_files(model, tmp_path / "video", tmp_path / "none", batch=0)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*", ["a.png", "town/b.png", "town/north/c.d.png"]),
        ("photos/**/*.[jP]*", ["town/b.png", "town/north/c.d.png"]),
        ("photos/t*n/*.jpg", ["town/b.png"]),
        ("ph*s/a.png", ["photos/a.png"]),
    ],
)
def test_patterns_keep_sub_folders_below_what_they_name(model, photos, tmp_path, pattern, expected):
    masks = predict_files(model, photos.parent / pattern, tmp_path / "out")
    assert [mask.relative_to(tmp_path / "out").as_posix() for mask in masks] == expected


def test_patterns_that_match_nothing_are_named(model, photos, tmp_path):
    with pytest.raises(UserError, match=r"\*\.gif: no images"):
        predict_files(model, photos / "*.gif", tmp_path / "out")


def test_an_image_that_is_named_twice_is_done_once(model, photos, tmp_path):
    assert len(predict_files(model, [photos, photos / "a.png"], tmp_path / "out")) == 3


def test_photos_never_give_way_to_their_masks(model, photos):
    before = (photos / "a.png").read_bytes()
    with pytest.raises(UserError, match="would take the place of photos"):
        predict_files(model, photos, photos, overwrite=True)
    with pytest.raises(UserError, match="would take the place of photos"):
        predict_files(model, photos / "a.png", photos, overwrite=True)
    assert (photos / "a.png").read_bytes() == before


def test_masks_of_an_earlier_call_are_no_photos(model, photos):
    first = predict_files(model, photos, photos / "masks")
    assert predict_files(model, photos, photos / "masks", overwrite=True) == first


def test_two_photos_for_one_mask_are_refused(model, photos, tmp_path):
    Image.new("RGB", (60, 60)).save(photos / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png: from .*a\.jpg and .*a\.png"):
        predict_files(model, photos, tmp_path / "out")


def test_links_do_not_lead_out_of_the_folder(model, photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "town").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"links lead out(.|\n)*town/b\.png"):
        predict_files(model, photos, tmp_path / "out", overwrite=True)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_one_broken_photo_does_not_cost_the_others(model, photos, tmp_path):
    (photos / "broken.jpg").write_bytes((photos / "town" / "b.jpg").read_bytes()[:300])
    with pytest.raises(UserError, match=r"3 masks written, 1 images left out(.|\n)*broken\.jpg"):
        predict_files(model, photos, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_missing_and_empty_inputs_are_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images"):
        predict_files(model, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match=r"absent: no such file or folder"):
        predict_files(model, [tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", [False, True])
def test_missing_models_are_named(tmp_path, folder):
    path = tmp_path if folder else tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="no such model") as caught:
        load(path)
    assert ("has not come to its end" in str(caught.value)) == folder


def test_a_run_folder_is_loaded_evaluated_and_used(trained, tmp_path, blocks):
    from_folder, from_file = acclimate.load(trained), acclimate.load(trained / "model.safetensors", device="cpu")
    image, label = blocks(64, 96)
    assert from_folder.width == 64
    assert from_folder.space == from_file.space
    assert not from_folder.network.training
    assert np.array_equal(from_folder.predict(image), from_file.predict(image))
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "one.png")
    scores = acclimate.evaluate(trained, tmp_path / "images", labels=str(tmp_path / "labels"))
    assert scores == evaluate_on(from_folder, tmp_path / "images", labels=str(tmp_path / "labels"))
    assert scores.classes == ("red", "green", "blue")
    (mask,) = acclimate.predict(trained, tmp_path / "images", tmp_path / "masks")
    assert np.array_equal(np.asarray(Image.open(mask)), from_folder.predict(image))


# Pictures


def test_colours_are_the_classes_and_ignored_pixels_are_dark(rgb_space):
    label = np.array([[0, 1], [2, IGNORE]], np.uint8)
    picture = pictures.colourise(label, rgb_space)
    assert [tuple(p) for p in picture.reshape(-1, 3).tolist()] == [*rgb_space.colours, pictures.DARK]
    photo = np.full((2, 2, 3), 100, np.uint8)
    assert np.array_equal(pictures.overlay(photo, label, rgb_space, opacity=0), photo)
    assert np.array_equal(pictures.overlay(photo, label, rgb_space, opacity=1), picture)


@pytest.mark.parametrize("size", [(40, 60), (300, 900)])
def test_a_comparison_shows_every_picture_and_the_legend(tmp_path, blocks, size):
    space = label_space("cityscapes19")
    image, label = blocks(*size)
    rows = [(image, [label, label + 10, np.full_like(label, IGNORE)])] * 2
    path = tmp_path / "new" / "sheet.png"
    pictures.comparison(rows, ["image", "before\n12.3", "after", "labels"], space, path)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == 2 * pictures.MARGIN + 4 * pictures.CELL + 3 * pictures.GAP
    shown = {tuple(colour) for colour in np.unique(sheet.reshape(-1, 3), axis=0).tolist()}
    assert set(space.colours) <= shown, "the legend has every class"
    for column in range(4):
        x = pictures.MARGIN + column * (pictures.CELL + pictures.GAP) + pictures.CELL // 2
        assert (sheet[:, x] != 255).any(axis=1).sum() > 2 * pictures.CELL * size[0] // size[1] - 4
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"], "no temporary file stays"
