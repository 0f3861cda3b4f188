"""Adapt by named variants over seeds, run by run; called again it goes on, so that a table can grow over days.

    python -m benchmarks.adaptation --setting demo --variants ours official --seeds 0 1 2
    python -m benchmarks.adaptation --setting camvid --variants baselines --renders DIR --photos DIR
    python -m benchmarks.adaptation                  # only the table of what is there

Runs go to OUT/SETTING/VARIANT/seed-N (default OUT: runs/adaptation). The first variant of a seed is always `ours`:
others take over the stages that do not depend on what they change, and it those that a longer setting has in common.
What a finished run came to is copied to records/ beside this file, which outlives the run's folder and the machine;
results.md and results.json are made of the records. A run that is done again replaces its record; of a setting without
records the files keep what they say.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from acclimate import recipe as recipes
from acclimate.files import atomic, read_json, write_json
from acclimate.run import Run
from benchmarks.adaptation import table
from benchmarks.adaptation.settings import KEEP, SETTINGS, Folders, Setting
from benchmarks.adaptation.variants import GROUPS, OURS, VARIANTS
from benchmarks.selection import rank

HERE = Path(__file__).parent
RECORDS = HERE / "records"
STORY = "story.json"
"""In the folder of a finished run: what it came to, see `table.Story`."""


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
            for variant in unfolded(args.variants, SETTINGS[args.setting]):
                one(args.out, args.setting, variant, seed, folders)
    put_on_record(args.out, RECORDS)
    stories = list(on_record(RECORDS))
    text = table.markdown(stories, before=(HERE / "results.md").read_text(encoding="utf-8"))
    with atomic(HERE / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    goals = table.goals(stories, before=read_json(HERE / "results.json"))
    write_json(HERE / "results.json", goals)
    print(text)


def unfolded(names: Iterable[str], setting: Setting) -> list[str]:
    """Single variants, `ours` first since others take over from it; of groups only those that change the setting."""
    groups = {group: [name for name in members if changes(name, setting)] for group, members in GROUPS.items()}
    single = [name for given in names for name in groups.get(given, [given])]
    return list(dict.fromkeys([OURS, *single]))


def changes(variant: str, setting: Setting) -> bool:
    """Whether a run of the setting gets to what the variant changes: one to stage 1 has no distillation."""
    of_distillation = all(choice.startswith("distill.") for choice in VARIANTS[variant])
    return not of_distillation or recipes.load(setting.recipe, setting.budget).distill.rounds > 0


def one(out: Path, setting: str, variant: str, seed: int, folders: Folders) -> None:
    """Do a run, unless it is finished, in a process of its own, whose memory is put on record."""
    run = place(out, setting, variant, seed)
    if (run / STORY).exists():
        return
    chosen = SETTINGS[setting]
    ends = [] if variant == OURS else ["data.ceiling.path="]  # the way to the ceiling is measured once, by ours
    choices = [*chosen.folders(folders), *chosen.budget, *ends, *VARIANTS[variant], f"seed={seed}"]
    command = [sys.executable, "-m", "acclimate", "adapt", chosen.recipe, *choices, "--out", str(run)]
    lends = chosen.begins_like if variant == OURS else setting
    lender = place(out, lends, OURS, seed)
    if lends and (lender / "recipe.yaml").exists():
        command += ["--reuse", str(lender)]
    print(f"{setting}, {variant}, seed {seed} …", flush=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"the run failed; see {run.with_suffix('.log')}")
    write_json(run / STORY, asdict(told(run, setting, variant, seed, peak_mb=round(used.ru_maxrss / 1024))))


def told(run: Path, setting: str, variant: str, seed: int, peak_mb: int) -> table.Story:
    """What a run came to, without the folders of this machine."""
    stages = [{key: value for key, value in row.items() if key != "on"} for row in read_json(run / "results.json")]
    with_candidates = variant == OURS and set(SETTINGS[setting].budget) >= KEEP
    ranking = rank(Run(run, recipes.load(run / "recipe.yaml"))) if with_candidates else {}
    return table.Story(setting, variant, seed, peak_mb, stages, ranking, read_json(run / "environment.json"))


def place(out: Path, setting: str, variant: str, seed: int) -> Path:
    """Folder of a run."""
    return out / setting / re.sub(r"\W+", "-", variant).lower() / f"seed-{seed}"


def put_on_record(out: Path, records: Path) -> None:
    """Copy what the finished runs in OUT came to."""
    for story in out.glob(f"*/*/*/{STORY}"):
        setting, variant, seed = story.parent.relative_to(out).parts
        write_json(records / setting / f"{variant}-{seed}.json", read_json(story))


def on_record(records: Path) -> Iterable[table.Story]:
    """What all runs on record came to."""
    for record in sorted(records.glob("*/*.json")):
        yield table.Story(**read_json(record))


if __name__ == "__main__":
    main()
