"""Folders as the Hugging Face hub wants them: saved, loaded back, uploaded. Nothing here asks the network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

import acclimate
from acclimate import HubModel, hub
from acclimate.errors import UserError
from acclimate.labels import LabelSpace
from acclimate.prediction import load

TABLE = "| IoU, % | warm-up | stage 1 |\n|---|---:|---:|\n| red | 51.2 | 60.8 |\n| mIoU | 45.1 | 52.4 |\n"


@pytest.fixture
def run(trained, tmp_path):
    """A run folder with a model and a table."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(trained / "model.safetensors")
    (folder / "results.md").write_text(TABLE)
    return folder


@pytest.fixture
def saved(run, tmp_path):
    HubModel.of(run, device="cpu").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_folder_gives_the_same_model(saved, run, blocks):
    image, _ = blocks(50, 75)
    before, after = load(run, "cpu"), HubModel.from_pretrained(saved, device="cpu")
    assert isinstance(after, HubModel)
    assert (after.space, after.width, after.results) == (before.space, before.width, TABLE)
    assert np.array_equal(after.probabilities(image), before.probabilities(image))
    assert np.array_equal(acclimate.load(saved, "cpu").predict(image), before.predict(image)), "it is a model's folder"
    assert HubModel.from_pretrained(saved, device="cpu", width=96).width == 96
    assert (saved / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_folder_saved_again_is_the_same(saved, tmp_path):
    HubModel.from_pretrained(str(saved)).save_pretrained(tmp_path / "again")
    assert sorted(p.name for p in saved.iterdir()) == ["README.md", "config.json", "model.safetensors", "results.md"]
    for file in saved.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_card_has_valid_front_matter_and_the_results(saved):
    card = ModelCard.load(saved / "README.md")
    head = card.data.to_dict()
    assert head["library_name"] == "acclimate"
    assert head["pipeline_tag"] == "image-segmentation"
    assert head["license"] == "unknown", "not ours to say"
    assert {"semantic-segmentation", "domain-adaptation"} <= set(head["tags"])
    text = (saved / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1]) == head
    assert TABLE in text
    assert "| 1 | green | `#28c83c` |" in text
    assert "None" not in text


def test_who_publishes_says_the_license(run, tmp_path):
    model = HubModel.of(run)
    model.save_pretrained(tmp_path, model_card_kwargs={"license": "cc-by-4.0", "datasets": ["me/photos"]})
    head = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert (head["license"], head["datasets"]) == ("cc-by-4.0", ["me/photos"])


def test_names_of_classes_stay_text_in_the_card(run):
    model = HubModel.of(run)
    space = LabelSpace("odd", ("a|b", "<script>", "sky"), model.space.colours)
    text = HubModel(model.network, space, 64).generate_model_card().content
    assert "a\\|b" in text
    assert "<script>" not in text
    assert "No table of results" in text


def test_a_card_that_somebody_wrote_is_kept(run, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    HubModel.of(run).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_upload_sends_the_folder(run, monkeypatch):
    sent = {}

    class Url:
        repo_id = "me/streets"

    def upload_folder(self, *, repo_id, folder_path, **_):
        sent[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())
        return "https://commit"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: Url())
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    assert HubModel.of(run).push_to_hub("me/streets") == "https://commit"
    assert sent == {"me/streets": ["README.md", "config.json", "model.safetensors", "results.md"]}


def test_a_repository_is_fetched_file_by_file(saved, monkeypatch):
    fetched = []

    def download(repo_id=None, filename=None, **_):
        fetched.append((repo_id, filename))
        return str(saved / filename)

    monkeypatch.setattr(hub, "hf_hub_download", lambda repo_id, filename, **_: download(repo_id, filename))
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    model = HubModel.from_pretrained("me/streets", device="cpu")
    assert model.results == TABLE
    assert fetched == [("me/streets", name) for name in ("config.json", "model.safetensors", "results.md")]


@pytest.mark.parametrize("source", ["no/such/folder", "not a name"])
def test_what_is_neither_folder_nor_repository_is_named(source):
    with pytest.raises(UserError, match=rf"^{source}: neither a folder with a model\.safetensors nor a repository"):
        HubModel.from_pretrained(source)


def test_folders_without_a_model_are_named(tmp_path):
    with pytest.raises(UserError, match="no such model"):
        HubModel.from_pretrained(tmp_path)
