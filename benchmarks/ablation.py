"""What each part of stage 1 is worth: the demo's stage 1 with one part removed, or one official defect put back.

    python benchmarks/ablation.py --base runs/demo --out runs/ablation

The base run gives source-only, warm-up and initialisation, which no variant changes; each variant trains
stage 1 anew with the base's seed. Variants that are finished are not run again. Writes OUT/ablation.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from acclimate import recipe as recipes
from acclimate.files import atomic
from acclimate.pipeline import adapt
from acclimate.run import Run

VARIANTS = {
    "no distribution alignment": ["selflabel.align=false"],
    "no rectification": ["selflabel.rectify=false"],
    "no consistency": ["selflabel.weight_consistency=0"],
    "no memory bank": ["selflabel.bank=0"],
    "no self-labelling loss": ["selflabel.weight_selflabel=0"],
    "uniform sampling": ["selflabel.stratified=false"],
    "fixed class distribution": ["selflabel.distribution_momentum=1"],
    "no CutMix": ["selflabel.cutmix=0"],
    "no loss on pseudo labels": ["selflabel.weight_target=0"],
    # Defects of the official implementation, docs/fidelity.md
    "contrast": ["selflabel.weight_contrast=0.001"],
    "B1 contrast with misplaced labels": [
        "selflabel.weight_contrast=0.001", "selflabel.bank_labels=misplaced", "selflabel.stratified=false",
    ],
    "B3 noisy teacher": ["selflabel.teacher_mode=train"],
    "B4 unnormalised bank scores": ["selflabel.bank_scores=dot"],
    "B5 self-labelling by logits": ["selflabel.weight_logits=0.1"],
    "B6 consistency over classes": ["selflabel.kl_mean=elements", "selflabel.weight_consistency=5"],
    "B7 fixed distribution, uniform sampling": [
        "selflabel.distribution_momentum=1", "selflabel.stratified=false",
    ],
    "B11 replayed label geometry": ["augment.label_geometry=replayed"],
}  # fmt: skip
WHOLE = "all parts"


def main() -> None:
    """Run all variants, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a finished run with labelled target images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the table")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="some of the variants")
    args = parser.parse_args()
    stage_1 = ["distill.rounds=0", "data.ceiling.path="]
    runs: dict[str, Run] = {}
    for name, change in {WHOLE: [], **{name: VARIANTS[name] for name in args.only}}.items():
        recipe = recipes.load(args.base / "recipe.yaml", [*stage_1, *change])
        runs[name] = adapt(recipe, args.out / re.sub(r"\W+", "-", name), reuse=args.base)
    with atomic(args.out / "ablation.md") as temporary:
        temporary.write_text(table(runs), encoding="utf-8")
    print(table(runs))


def table(runs: dict[str, Run]) -> str:
    """mIoU of stage 1 and its difference to all parts, and the IoU of the classes that changed most, in Markdown."""
    rows = {name: run.scores("selflabel") or {} for name, run in runs.items()}
    whole = rows[WHOLE]
    lines = ["| stage 1 | mIoU, % | difference | largest changes of a class |", "|---|---:|---:|---|"]
    for name, row in rows.items():
        change = {c: 100 * ((row["iou"][c] or 0) - (whole["iou"][c] or 0)) for c in whole["iou"]}
        largest = sorted(change, key=lambda c: -abs(change[c]))[:3] if row is not whole else []
        words = ", ".join(f"{c} {change[c]:+.1f}" for c in largest)
        difference = f"{100 * (row['mean_iou'] - whole['mean_iou']):+.1f}" if row is not whole else ""
        lines.append(f"| {name} | {100 * row['mean_iou']:.1f} | {difference} | {words} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
