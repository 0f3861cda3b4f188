"""Completion, as the shells themselves do it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acclimate import cli, completion
from acclimate import recipe as recipes
from acclimate.errors import UserError

# What stands on the line, the last word being completed, and some of what is offered; what is not.
CASES = [
    ("ada", ["adapt"], ["check"]),
    ("", ["adapt", "doctor", "recipes"], ["laptop"]),
    ("adapt lap", ["laptop"], ["demo"]),
    ("adapt laptop --sour", ["--source", "--source-layout"], ["--seed"]),
    ("adapt --source-layout ", ["gta5", "cityscapes"], ["laptop"]),
    ("adapt laptop selflabel.it", ["selflabel.iterations="], ["selflabel.bank="]),
    ("adapt optimizer.name=", ["sgd", "adamw"], ["laptop"]),
    ("adapt optimizer.name=a", ["adamw"], ["sgd"]),
    ("demo warmup.iter", ["warmup.iterations="], []),
    ("check gta5-cityscapes tensorboard=", ["true", "false"], []),
    ("recipes sy", ["synthia-cityscapes"], ["laptop"]),
    ("completion ", ["bash", "zsh", "fish"], ["laptop"]),
    ("predict --js", ["--json"], ["--out"]),
]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def ask(shell: str, program: str, folder: Path) -> list[str]:
    done = subprocess.run([shell, *(["-f"] if shell == "zsh" else []), "-c", program], capture_output=True, text=True,
                          cwd=folder, check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split("\n")


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "completion"
    path.write_text(completion.script(request.param, cli.COMMANDS), encoding="utf-8")
    return path


@needs("bash")
@pytest.mark.parametrize(("line", "offered", "hidden"), CASES)
@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash(script: Path, line: str, offered: list[str], hidden: list[str]) -> None:
    words = " ".join(f"'{word}'" for word in ["acclimate", *line.replace("=", " = ").split(" ")])
    if "=" in line and line.endswith("="):
        words = words.removesuffix(" ''")  # the "=" is what the cursor stands at
    program = f"source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _acclimate"
    found = ask("bash", f'{program}; printf "%s\\n" "${{COMPREPLY[@]}}"', script.parent)
    assert set(offered) <= set(found) and not set(hidden) & set(found)


@needs("zsh")
@pytest.mark.parametrize(("line", "offered", "hidden"), CASES)
@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh(script: Path, line: str, offered: list[str], hidden: list[str]) -> None:
    words = ["acclimate", *line.split(" ")]
    # Stands in for what zsh offers functions of completion: it would compare the words with what was typed.
    stubs = (
        "compdef() {}; _files() {}; compset() { PREFIX=${PREFIX#*=} }; "
        'compadd() { for w in ${@:#(-S|--|)}; do [[ $w == ${PREFIX}* ]] && print -r -- "$w"; done; true }'
    )
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"{stubs}; source {script}; words=({quoted}); CURRENT={len(words)}; PREFIX='{words[-1]}'; _acclimate"
    found = ask("zsh", program, script.parent)
    assert set(offered) <= set(found) and not set(hidden) & set(found)


@needs("fish")
@pytest.mark.parametrize(("line", "offered", "hidden"), CASES)
@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish(script: Path, line: str, offered: list[str], hidden: list[str]) -> None:
    found = ask("fish", f"source {script}; complete -C 'acclimate {line}'", script.parent)
    key = line.split(" ")[-1].partition("=")[0] + "=" if "=" in line else ""
    words = {entry.partition("\t")[0].removeprefix(key) for entry in found}
    assert set(offered) <= words and not set(hidden) & words


@needs("bash")
def test_a_person_at_bash_presses_tab(tmp_path: Path) -> None:
    """Nothing stands in for the shell here: a terminal, readline, and the words that it puts there."""
    (tmp_path / "completion").write_text(completion.script("bash", cli.COMMANDS), encoding="utf-8")
    main, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, cwd=tmp_path,
        env={**os.environ, "PS1": "$ ", "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        os.write(main, b"acclimate() { printf '<%s>' \"$@\"; echo end; }; source completion\n")
        os.write(main, b"acclimate ada\tlap\tselflabel.iter\t5 optimizer.name=adam\t\n")
        said, until = "", time.monotonic() + 30
        while "end\r" not in said.partition("printf")[2].partition("\n")[2] and time.monotonic() < until:
            if select.select([main], [], [], 1)[0]:
                said += os.read(main, 4096).decode()
    finally:
        shell.kill()
        shell.wait()
        os.close(main)
    assert "<adapt><laptop><selflabel.iterations=5><optimizer.name=adamw>end" in said


def test_all_keys_recipes_and_options_are_known() -> None:
    text = completion.script("bash", cli.COMMANDS)
    assert all(f" {name}" in text or f"({name}" in text for name in recipes.names())
    flat = recipes.flatten(recipes.to_dict(recipes.Recipe()))
    assert completion.key_words() == [f"{key}=" for key in flat]
    for key, values in completion.key_values():
        assert key in flat
        for value in values:
            try:
                recipes.load("laptop", [f"{key}={value}"])
            except UserError as contradiction:  # to other keys, perhaps
                assert "expected" not in str(contradiction)
    assert {option for found in map(completion.words_of, (c.parser() for c in cli.COMMANDS.values()))
            for option in found.options} >= {"--source", "--val-ids", "--json", "--quiet", "--overlay"}  # fmt: skip


def test_no_script_needs_torch() -> None:
    program = "import sys; from acclimate import cli; cli.main(['completion', 'zsh']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith(b"#compdef acclimate")
