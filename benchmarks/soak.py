"""A run that is killed at random again and again, against one that never is; both should end alike, to the bit.

    python benchmarks/soak.py --out runs/soak --kills 50 --demo save_every=10

Runs the demo (or ``adapt`` with the words given) twice: once undisturbed, once with SIGKILL after random times.
Call it again with the same --out to go on. Writes OUT/soak.md: every kill, where it struck, and what differs in the
end (nothing, it should say). Further words are the recipe and ``key=value`` choices, for both runs; saves should be
closer together than kills, or nothing is ever gained.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from acclimate.files import atomic

LIFE = 30.0


@dataclass
class Kill:
    """One call of the disturbed run that did not live to its end."""

    seconds: float
    """From its first write."""
    where: str
    """The last record, and the file that was written last."""


def main() -> None:
    """Do both runs, compare, write and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for both runs and the report")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills; the recipe's is seed=N")
    parser.add_argument("words", nargs="*", help="RECIPE and key=value for `acclimate adapt`; none, or only "
                        "key=value with --demo: the demo")  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="words are choices over the demo")
    args = parser.parse_args()
    verb = "demo" if args.demo or not args.words else "adapt"
    command = [sys.executable, "-m", "acclimate", verb, *args.words, "--out"]
    args.out.mkdir(parents=True, exist_ok=True)

    seconds = undisturbed([*command, str(args.out / "unbroken")], args.out / "unbroken.log")
    kills = disturbed([*command, str(args.out / "killed")], args.out / "killed", seconds, args.kills, args.seed)
    differing = differences(args.out / "unbroken", args.out / "killed")
    text = report(" ".join(command[1:-1]), seconds, kills, differing, args.seed)
    with atomic(args.out / "soak.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(bool(differing))


def undisturbed(command: list[str], log: Path) -> float:
    """Seconds that the whole run takes from its first write; remembered for a second call."""
    known = log.with_suffix(".seconds")
    if not known.exists():
        with log.open("a") as file:
            process = begin(command, log.with_suffix(""), file)
            started = time.monotonic()
            if process.wait():
                sys.exit(f"the run failed; see {log}")
        known.write_text(str(time.monotonic() - started))
    return float(known.read_text())


def begin(command: list[str], run: Path, log: IO[str]) -> subprocess.Popen[bytes]:
    """Start a run and wait for its first write, since nothing can be lost before."""
    sign = run / "environment.json"
    before = sign.stat().st_mtime_ns if sign.exists() else 0
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    while process.poll() is None and (sign.stat().st_mtime_ns if sign.exists() else 0) == before:
        time.sleep(0.02)
    return process


def disturbed(command: list[str], run: Path, seconds: float, count: int, seed: int) -> list[Kill]:
    """Kill the run ``count`` times, then let it finish.

    A life lasts up to twice the part of the run that each would have if nothing were done twice, and up to LIFE
    seconds at least: shorter ones alone would never outlive what no checkpoint divides (a start, an evaluation).
    """
    rng, kills, longest = random.Random(seed), [], max(2 * seconds / count, LIFE)
    with run.with_suffix(".log").open("a") as log:
        while True:
            life = rng.uniform(0, longest) if len(kills) < count else None
            process = begin(command, run, log)
            try:
                code = process.wait(life)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills.append(Kill(life or 0, where(run)))
                print(f"kill {len(kills)} after {life:.1f} s: {kills[-1].where}", flush=True)
                continue
            if code:
                sys.exit(f"the run ended with code {code}; see {log.name}")
            return kills


def where(run: Path) -> str:
    """How far a run came."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    records = [json.loads(line) for line in lines[-2:] if line.endswith("}")]
    last = f"{records[-1]['stage']} {records[-1]['step']}" if records else "before the first record"
    files = [path for path in run.rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime_ns).relative_to(run) if files else "no file"
    return f"{last}, {newest}"


def differences(one: Path, other: Path) -> list[str]:
    """Files that are in one run alone or differ; minutes may."""
    stories = [{str(path.relative_to(run)): content(path) for path in files(run)} for run in (one, other)]
    names = stories[0].keys() | stories[1].keys()
    return sorted(name for name in names if stories[0].get(name) != stories[1].get(name))


def files(run: Path) -> list[Path]:
    """What a run consists of."""
    return [
        path
        for path in run.rglob("*")
        if path.is_file() and path.name not in (".lock", "environment.json", "report.html")
    ]


def content(path: Path) -> object:
    """Of a file, without what may differ."""
    if path.name in ("done.json", "results.json"):
        return re.sub(r'"minutes": [\d.e-]+', "", path.read_text())
    if path.name == "results.md":
        return [line for line in path.read_text().splitlines() if not line.startswith("| minutes")]
    return path.read_bytes()


def report(command: str, seconds: float, kills: list[Kill], differing: list[str], seed: int) -> str:
    """All that happened, as Markdown."""
    rows = [f"| {number} | {kill.seconds:.1f} | {kill.where} |" for number, kill in enumerate(kills, 1)]
    verdict = f"differing: {', '.join(differing)}" if differing else "no file differs (minutes aside)"
    return "\n".join([
        f"`{command}`, undisturbed {seconds / 60:.1f} minutes; {len(kills)} SIGKILLs (seed {seed}): **{verdict}**.",
        "", "| kill | after s | last record, last file |", "|---:|---:|---|", *rows, "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
