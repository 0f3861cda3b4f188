"""What a machine offers, and which recipe suits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acclimate import cli, doctor
from acclimate import recipe as recipes

CPU = {"device": "cpu", "name": "x86_64", "memory": None}


def gpu(gigabytes: float | None) -> dict[str, Any]:
    return {"device": "cuda:0", "name": "some GPU", "memory": gigabytes and int(gigabytes * 1e9)}


def test_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--out", str(tmp_path / "not" / "there"), "--json"]) == 0
    out, told = capsys.readouterr()
    found = json.loads(out)
    assert found["cores"] >= 1 and found["memory"] > 1e8 and found["free_disk"] > 0
    assert found["devices"][-1]["device"] == "cpu"
    assert set(found["recipes"]) == set(recipes.names()) and found["recipes"][found["recipe"]]["suits"]
    assert all(word in told for word in ("torch", "free disk", f"recipe {found['recipe']}, since"))
    assert not (tmp_path / "not").exists(), "looking makes no folders"


def test_extras_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "torch>=2",
        'here>=1; extra == "one"',
        "gone>=2 ; extra == 'one'",
        'x>=1; extra == "dev"',
        'here; extra == "two"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if name == "here" else None)
    assert doctor.extras() == {"one": ["gone"], "two": []}


def test_a_checkout_that_is_not_installed_lists_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "distribution", raise_not_found)
    assert doctor.extras() == {}


def raise_not_found(name: str) -> None:
    raise doctor.metadata.PackageNotFoundError(name)


def test_a_machine_without_a_gpu_is_told_what_was_made_for_it() -> None:
    found = doctor.suitable([CPU])
    assert {name for name, said in found.items() if said["suits"]} >= {"demo", "laptop"}
    assert not found["gta5-cityscapes"]["suits"] and found["gta5-cityscapes"]["why"].endswith("here is none")
    assert not doctor.suitable([gpu(None), CPU])["gta5-cityscapes"]["suits"]


def test_a_recipe_suits_a_gpu_of_the_size_that_its_header_names() -> None:
    assert doctor.suitable([gpu(42.3), CPU])["gta5-cityscapes"]["suits"]
    small = doctor.suitable([gpu(15.8), CPU])["gta5-cityscapes"]
    assert small["suits"] and "add network.checkpointing=true" in small["why"]
    assert not doctor.suitable([gpu(8), CPU])["gta5-cityscapes"]["suits"]
    assert not doctor.suitable([gpu(42.3), CPU])["gta5-cityscapes-official"]["suits"], "48 GB"


@pytest.mark.parametrize("gigabytes", [0, 4, 80])
def test_the_advice_is_a_recipe_for_any_folders_that_fits(gigabytes: int) -> None:
    found = [gpu(gigabytes), CPU] if gigabytes else [CPU]
    machine = {
        "devices": found,
        "recipes": doctor.suitable(found),
        "cores": 8,
        "memory": 32e9,
        "free_disk": 1e12,
        "out": "x",
    }
    told = doctor.advice(machine)
    chosen = recipes.load(told["recipe"])
    assert machine["recipes"][told["recipe"]]["suits"] and chosen.data.source.layout == "folder"
    assert ("no GPU" in told["why"]) == (gigabytes < 16) and told["warnings"] == []
    assert told["recipe"] == "laptop" or gigabytes == 80


def test_too_little_disk_or_memory_is_a_warning_with_a_remedy() -> None:
    scarce = {
        "devices": [CPU],
        "recipes": doctor.suitable([CPU]),
        "cores": 2,
        "memory": 2e9,
        "free_disk": 1e8,
        "out": "x",
    }
    disk, memory = doctor.advice(scarce)["warnings"]
    assert "0.1 GB are free" in disk and "another disk" in disk
    assert "2.0 GB" in memory and "lower its batch sizes" in memory
