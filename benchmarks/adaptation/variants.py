"""What is compared. Each is a list of choices over the setting's recipe; the base of all is the recipe as it is."""

from __future__ import annotations

OURS = "ours"

ALONE = ["selflabel.rectify=false", "selflabel.weight_selflabel=0", "selflabel.weight_consistency=0"]
"""No clusters: nothing is assigned, corrected or kept consistent."""

BASELINES = {
    # Fixed pseudo labels, all pixels alike, one cross-entropy.
    "naive self-training": [*ALONE, "selflabel.trust=alike", "selflabel.balance=0"],
    # The averaged network's labels of the moment, with the weights of pixels and classes that ours has.
    "mean teacher": [*ALONE, "selflabel.labels=online"],
    "official": ["method=official", "selection.average=false"],
}

PARTS = {
    "no self-labelling": ALONE,
    "no distribution alignment": ["selflabel.align=false"],
    "no rectification": ["selflabel.rectify=false"],
    "all classes corrected alike": ["selflabel.rectify_by=alike"],
    "corrected alike, no alignment": ["selflabel.rectify_by=alike", "selflabel.align=false"],
    "no consistency": ["selflabel.weight_consistency=0"],
    "no memory bank": ["selflabel.bank=0"],
    "no self-labelling loss": ["selflabel.weight_selflabel=0"],
    "uniform sampling": ["selflabel.stratified=false"],
    "fixed class distribution": ["selflabel.distribution_momentum=1"],
    "no CutMix": ["selflabel.cutmix=0"],
    "no loss on pseudo labels": ["selflabel.weight_target=0"],
}  # fmt: skip

DEFECTS = {
    # Of the official implementation, docs/fidelity.md; B2 is one of distillation.
    "contrast": ["selflabel.weight_contrast=0.001"],
    "B1 contrast with misplaced labels": [
        "selflabel.weight_contrast=0.001", "selflabel.bank_labels=misplaced", "selflabel.stratified=false",
    ],
    "B2 distillation without logarithm": ["distill.divergence=official"],
    "B3 noisy teacher": ["selflabel.teacher_mode=train"],
    "B4 unnormalised bank scores": ["selflabel.bank_scores=dot"],
    "B5 self-labelling by logits": ["selflabel.weight_logits=0.1"],
    "B6 consistency over classes": ["selflabel.kl_mean=elements", "selflabel.weight_consistency=5"],
    "B7 fixed distribution, uniform sampling": ["selflabel.distribution_momentum=1", "selflabel.stratified=false"],
    "B11 replayed label geometry": ["augment.label_geometry=replayed"],
}  # fmt: skip

PASSES = {
    # Passes of the official step that ours saves, one at a time: docs/performance.md.
    "teacher on the whole image": ["selflabel.teacher_view=whole"],
    "labels learned from the weak view": ["selflabel.target_view=weak"],
    "source and target apart": ["network.passes=separate"],
}

GROUPS = {"baselines": BASELINES, "parts": PARTS, "defects": DEFECTS, "passes": PASSES}
VARIANTS: dict[str, list[str]] = {OURS: []} | {
    name: choices for group in GROUPS.values() for name, choices in group.items()
}
