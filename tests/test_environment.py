"""The commit on a run's record is the package's own, and says whether the code was as committed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from acclimate.environment import commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/module.py").write_text("before = 1\n")
    (tmp_path / "records.json").write_text("[]\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_commit_of_a_checkout(checkout: Path) -> None:
    assert commit_of(checkout / "package/module.py") == git(checkout, "rev-parse", "--short", "HEAD")


def test_changed_records_leave_the_code_as_committed(checkout: Path) -> None:
    (checkout / "records.json").write_text("[1]\n")
    assert commit_of(checkout / "package/module.py") == git(checkout, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("name", ["module.py", "new.py"])
def test_changed_code_is_named(checkout: Path, name: str) -> None:
    (checkout / "package" / name).write_text("after = 2\n")
    commit = commit_of(checkout / "package/module.py")
    assert commit is not None
    assert commit.endswith("-dirty")


def test_a_package_installed_in_another_projects_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout / ".venv/site-packages/package/module.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("before = 1\n")
    assert commit_of(installed) is None


def test_no_checkout_no_commit(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("")
    assert commit_of(tmp_path / "module.py") is None
