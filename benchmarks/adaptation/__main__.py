"""Adapt by named variants over seeds, run by run; called again it goes on, so that a table can grow over days.

    python -m benchmarks.adaptation --setting demo --variants ours official --seeds 0 1 2
    python -m benchmarks.adaptation --setting camvid-stage-1 --variants parts --renders DIR --photos DIR
    python -m benchmarks.adaptation                  # only the table of what is there

Runs go to OUT/SETTING/VARIANT/seed-N (default OUT: runs/adaptation). The first variant of a seed is always `ours`:
others take over the stages that do not depend on what they change, and it those that a longer setting has in common.
Writes results.md and results.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from acclimate import recipe as recipes
from acclimate.files import atomic, write_json
from acclimate.run import Run
from benchmarks.adaptation import table
from benchmarks.adaptation.settings import KEEP, SETTINGS, Folders
from benchmarks.adaptation.variants import GROUPS, OURS, VARIANTS
from benchmarks.selection import rank

HERE = Path(__file__).parent
RANKING = "ranking.json"
"""In the folder of a run whose candidates are kept: how well scores without labels rank them."""


def main() -> None:
    """Do the runs that are asked for and not finished, then write and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS)
    parser.add_argument("--variants", nargs="+", default=[OURS], choices=[*GROUPS, *VARIANTS], metavar="NAME",
                        help=f"groups ({', '.join(GROUPS)}) or single ones: {', '.join(VARIANTS)}")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--renders", type=Path, help="rendered streets with ids of Cityscapes (settings camvid…)")
    parser.add_argument("--photos", type=Path, help="CamVid (settings camvid…)")
    args = parser.parse_args()
    if args.setting:
        folders = Folders(args.out, args.renders, args.photos)
        for seed in args.seeds:  # the table fills evenly
            for variant in unfolded(args.variants):
                one(args.out, args.setting, variant, seed, folders)
    stories = list(finished(args.out))
    text = table.markdown(stories)
    with atomic(HERE / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(HERE / "results.json", table.goals(stories))
    print(text)


def unfolded(names: Iterable[str]) -> list[str]:
    """Single variants, `ours` first since others take over from it."""
    single = [name for given in names for name in GROUPS.get(given, [given])]
    return list(dict.fromkeys([OURS, *single]))


def one(out: Path, setting: str, variant: str, seed: int, folders: Folders) -> None:
    """Do a run, unless it is finished, in a process of its own, whose memory is put on record."""
    run = place(out, setting, variant, seed)
    if (run / "cost.json").exists():
        return
    chosen = SETTINGS[setting]
    choices = [*chosen.folders(folders), *chosen.budget, *VARIANTS[variant], f"seed={seed}"]
    command = [sys.executable, "-m", "acclimate", "adapt", chosen.recipe, *choices, "--out", str(run)]
    lender = place(out, chosen.begins_like if variant == OURS else setting, OURS, seed)
    if (lender / "recipe.yaml").exists():
        command += ["--reuse", str(lender)]
    print(f"{setting}, {variant}, seed {seed} …", flush=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"the run failed; see {run.with_suffix('.log')}")
    cost = {"setting": setting, "variant": variant, "seed": seed, "peak_mb": round(used.ru_maxrss / 1024)}
    if variant == OURS and set(chosen.budget) >= KEEP:
        write_json(run / RANKING, rank(Run(run, recipes.load(run / "recipe.yaml"))))
    write_json(run / "cost.json", cost)


def place(out: Path, setting: str, variant: str, seed: int) -> Path:
    """Folder of a run."""
    return out / setting / re.sub(r"\W+", "-", variant).lower() / f"seed-{seed}"


def finished(out: Path) -> Iterable[table.Story]:
    """What all finished runs came to."""
    for cost in sorted(out.glob("*/*/*/cost.json")):
        run = cost.parent
        stages = json.loads((run / "results.json").read_text())
        ranking = json.loads((run / RANKING).read_text()) if (run / RANKING).exists() else {}
        yield table.Story(**json.loads(cost.read_text()), stages=stages, ranking=ranking)


if __name__ == "__main__":
    main()
