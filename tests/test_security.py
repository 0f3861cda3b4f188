"""What the sources must not contain, and what names from outside must not do."""

from __future__ import annotations

import ast
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import acclimate
from acclimate import cli
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.labels import LabelSpace
from acclimate.printable import is_plain, printable, shown
from acclimate.results import markdown

SOURCES = sorted(Path(acclimate.__file__).parent.rglob("*.py"))
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "shelve.open", "marshal.loads",
    "tempfile.mktemp", "torch.hub.load", "torch.jit.load", "np.fromfile", "dill.load", "joblib.load", "pd.read_pickle",
}  # fmt: skip


def problems(source: str) -> list[str]:
    """Calls in Python source that could run what a file brings along."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN:
            found.append(name)
        if name.endswith("torch.load") and given.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if name.endswith("np.load") and given.get("allow_pickle") != "False":
            found.append("np.load without allow_pickle=False")
        if given.get("shell", "False") != "False":
            found.append("shell=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_source_runs_what_a_file_brings_along(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []


def test_such_calls_would_be_found() -> None:
    source = """
torch.load(x); torch.load(x, weights_only=False); np.load(x); np.load(x, allow_pickle=True)
yaml.load(x); eval(x); pickle.loads(x); subprocess.run(x, shell=True)
torch.load(x, weights_only=True); np.load(x, allow_pickle=False); network.eval(); re.compile(x); subprocess.run([x])
"""
    assert len(problems(source)) == 8


def test_yaml_is_read_in_one_place_alone() -> None:
    readers = [p.name for p in SOURCES if "yaml.SafeLoader" in (text := p.read_text()) or "yaml.safe_load" in text]
    assert readers == ["yamls.py"]


NASTY = "[red]x[/] [link=file:///etc]y[/link] :car: \x1b]0;title\x07\x1b[2J\x9b1m \u202egnp.exe \udce9"


def test_nothing_steers_the_terminal_and_nothing_vanishes(tmp_path: Path) -> None:
    assert printable("plain Straße, 道路 👩‍🚀\n\t") == "plain Straße, 道路 👩‍🚀\n\t"
    safe = printable(NASTY)
    assert safe.encode() and not any(c in safe for c in "\x1b\x07\x9b\u202e")
    console = Console(file=io.StringIO(), width=500)
    Journal(tmp_path / "m.jsonl", console).warn(NASTY)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x[/] [link=file:///etc]y[/link] :car: \\x1b]0;title\\x07\\x1b[2J" in said and "\x1b" not in said


def test_messages_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(args: object) -> None:
        logging.getLogger("acclimate.x").warning("logged %s", NASTY)
        raise UserError(f"file {NASTY}")

    # pytest's record of what is logged travels between processes as UTF-8, which this is not
    monkeypatch.setattr(logging.getLogger("acclimate"), "propagate", False)
    command = cli.COMMANDS["recipes"]
    monkeypatch.setitem(cli.COMMANDS, "recipes", cli.Command("recipes", "x", lambda _: None, fails, command.usage))
    assert cli.main(["recipes"]) == 2
    said = capsys.readouterr().err
    assert said.count("[red]x[/]") == 2 and "\x1b" not in said and "\u202e" not in said


def test_a_terminal_of_few_letters_is_no_reason_to_end(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("# Äpfel … 道路\n", encoding="utf-8")
    command = [sys.executable, "-m", "acclimate", "recipes", str(tmp_path / "own.yaml")]
    ended = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=True)
    assert ended.stdout.decode("latin-1").strip() == "# Äpfel \\u2026 \\u9053\\u8def"


def test_class_names_cannot_break_out_of_a_table() -> None:
    row = {
        "title": "stage",
        "iou": {"a|b": 0.5, "<script>x</script>": 0.5, "\\": 0.5},
        "mean_iou": 0.5,
        "iterations": 1,
    }
    text = markdown([{**row, "minutes": 1.0}])
    assert "<script>" not in text and "| a\\|b | 50.0 |" in text and "| \\\\ | 50.0 |" in text
    for name in ("x\ny", "\x1b[2J", "\udce9"):
        with pytest.raises(UserError, match="control characters"):
            LabelSpace("s", (name, "b"), ((0, 0, 0), (1, 1, 1)))


def test_values_are_shown_short() -> None:
    deep: object = "x"
    for _ in range(12):
        deep = [deep] * 9
    assert len(shown(deep)) < 200 and len(shown("y" * 10**6)) < 200 and shown(16**5000) == "a huge int"
    assert is_plain("a b\u200d") and not is_plain("a\nb")
