"""Bad input, as a user would give it: it works, or ends in one message with file and remedy; nothing is damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

import bad_inputs
import pytest
from bad_inputs import CASES, DOCUMENT, PATCHES, REFUSED, Case, answer, document, key, message

from acclimate import pipeline

MESSAGES: dict[str, str] = {}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bad_inputs.good_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipeline, "fit", lambda *_: pytest.fail("trained on bad input"))
    return Path(shutil.copytree(good, tmp_path / "d"))


@pytest.mark.parametrize("case", CASES, ids=key)
def test_bad_input(case: Case, folder: Path) -> None:
    spoiled: dict[str, str] = {}
    watched = dataclasses.replace(case, spoil=lambda d: (case.spoil(d), spoiled.update(contents(d))))
    code, out, err = answer(watched, folder)
    MESSAGES[key(case)] = message(case, folder, err)
    assert code == case.code, err
    assert "Traceback" not in err + out
    assert not any(c in out + err for c in "\x1b\x07\x9b")
    if case.code == REFUSED:
        assert err.count("acclimate: ") == 1
        for part in case.says:
            assert part in err, err
    now = contents(folder)
    for path in spoiled:
        assert now.get(path) == spoiled[path] or (PATCHES and path not in now), f"{path} is there, and the same"
    if case.code == REFUSED:
        assert [path for path in now if path not in spoiled and not Path(path).match(case.alters or "-")] == []
    assert not Path("/tmp/acclimate-was-here").exists()


def test_the_table_is_large_enough_and_says_each_thing_once() -> None:
    assert len(CASES) >= 60
    assert max(Counter(map(key, CASES)).values()) == 1


def test_the_document_is_up_to_date(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "fit", lambda *_: pytest.fail("trained on bad input"))
    for number, case in enumerate(CASES):
        if key(case) not in MESSAGES:  # this test alone, or another process's share of the table
            folder = Path(shutil.copytree(good, tmp_path / f"{number}" / "d"))
            MESSAGES[key(case)] = message(case, folder, answer(case, folder)[2])
    assert DOCUMENT.read_text(encoding="utf-8") == document(MESSAGES), "write it anew: see tests/bad_inputs.py"


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file by its path."""
    return {
        os.path.relpath(file, folder): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }
