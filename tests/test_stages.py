"""The stages' tasks on small random batches: what each part of the recipe switches on and off."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from acclimate import recipe
from acclimate.data.geometry import Grid
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.labels import IGNORE
from acclimate.networks import Segmenter, build
from acclimate.stages.cutmix import draw_patches
from acclimate.stages.distill import DistillTask, confident_labels
from acclimate.stages.initialise import Initial
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.stages.task import Task
from acclimate.stages.warmup import SupervisedTask, WarmupTask

CLASSES, HEIGHT, WIDTH, STRIDE = 4, 64, 96, 4
GRID = Grid(STRIDE)


def choices(**sections: dict[str, Any]) -> recipe.Recipe:
    network = {"backbone": "test_resnet.r160_in1k", "weights": "none", "channels": 16}
    return recipe.parse({"network": network, "optimizer": {"ramp": 0, "lr": 1e-3}, **sections})


def network(seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return build(choices().network, CLASSES)


def source_batch(count: int = 2) -> SourceBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, CLASSES, (count, HEIGHT, WIDTH), generator=generator)
    label[:, :8] = IGNORE
    return SourceBatch(image, label)


def target_batch(count: int = 2) -> TargetBatch:
    generator = torch.Generator().manual_seed(2)
    h, w = HEIGHT // STRIDE, WIDTH // STRIDE
    image = torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    valid = torch.ones(count, h, w, dtype=torch.bool)
    valid[:, :, -2:] = False
    soft = torch.randn(count, CLASSES, h, w, generator=generator).mul(3).softmax(dim=1) * valid[:, None]
    shift = torch.eye(3).repeat(count, 1, 1)
    shift[:, 0, 2] = 8.0  # the strong view shows what lies 8 pixels further right
    strong_valid = torch.zeros(count, h, w, dtype=torch.bool)
    strong_valid[:, :, : w - 4] = True
    replay = torch.full((count, 10), float("nan"))
    replay[:, 0], replay[:, 3] = 0, 8.0  # the same, as the official code remembers it
    placed = torch.tensor([HEIGHT, WIDTH, 0, HEIGHT, 0, WIDTH, 0]).repeat(count, 1)  # the view is the whole image
    return TargetBatch(
        image, image.flip(1), soft, valid, shift, strong_valid, replay, image, placed, torch.arange(count)
    )


def initial() -> Initial:
    return Initial(torch.tensor([0.4, 0.3, 0.2, 0.1]).double(), torch.randn(CLASSES, 16))


def selflabel(**section: Any) -> SelfLabelTask:
    section = {"bank": 512, "pixels": 32, **section}
    student = network()
    return SelfLabelTask(student, initial(), choices(selflabel=section))


def descend(task: Task, batch: Any, steps: int = 1) -> dict[str, float]:
    task.train()
    for step in range(steps):
        torch.manual_seed(step)
        terms = task.step(batch)
        for optimizer in task.optimizers:
            optimizer.zero_grad()
        terms["loss"].backward()
        for optimizer in task.optimizers:
            optimizer.step()
        task.after_step()
    return {name: float(term.detach()) for name, term in terms.items() if not term.ndim}


PAIR = (source_batch(), target_batch())


@pytest.mark.parametrize("kind", ["source", "warmup", "selflabel", "distill"])
def test_every_task_learns_its_batch(kind: str) -> None:
    tasks: dict[str, tuple[Any, Any]] = {
        "source": (lambda: SupervisedTask(network(), choices(), recipe.Supervised()), PAIR[0]),
        "warmup": (lambda: WarmupTask(network(), choices()), PAIR),
        "selflabel": (lambda: selflabel(cutmix=0.0), PAIR),
        "distill": (
            lambda: DistillTask(network(), initial().distribution_K, choices(distill={"threshold": 0.5})),
            PAIR,
        ),
    }
    make, batch = tasks[kind]
    first, last = descend(make(), batch), descend(make(), batch, steps=15)
    assert last["loss"] < first["loss"]


def test_the_discriminator_and_the_segmenter_each_get_their_own_gradient() -> None:
    task = WarmupTask(network(), choices(warmup={"adversarial_weight": 1.0}))
    task.train()
    source, _ = PAIR
    probabilities = task.student(source.image_BCHW.float() / 255).logits_BKhw.softmax(dim=1)
    terms = task._adversarial(probabilities, probabilities)
    terms["adversarial"].backward(retain_graph=True)
    assert all(p.grad is None for p in task.discriminator.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in task.student.parameters())
    task.student.zero_grad()
    terms["discriminator"].backward()
    assert all(p.grad is not None for p in task.discriminator.parameters())
    assert not any(p.grad is not None and bool(p.grad.any()) for p in task.student.parameters())


def test_warmup_without_adversary_has_none() -> None:
    task = WarmupTask(network(), choices(warmup={"adversarial": False}))
    assert set(descend(task, PAIR)) == {"loss", "source"}
    assert len(task.optimizers) == 1


def test_each_loss_of_stage_1_can_be_removed() -> None:
    assert set(descend(selflabel(), PAIR)) == {"loss", "source", "target", "consistency", "selflabel"}
    for name in ("target", "consistency", "selflabel"):
        assert name not in descend(selflabel(**{f"weight_{name}": 0.0}), PAIR)


@pytest.mark.parametrize("statistics", ["target", "trained"])
def test_stage_1_keeps_the_statistics_that_it_begins_with_unless_told_to_train_them(statistics: str) -> None:
    recipe_ = choices()
    recipe_ = dataclasses.replace(recipe_, network=dataclasses.replace(recipe_.network, statistics=statistics))
    task = SelfLabelTask(network(), initial(), recipe_)
    before = {name: t.clone() for name, t in task.state_dict().items() if "running_" in name}
    descend(task, PAIR, steps=2)
    same = [torch.equal(t, task.state_dict()[name]) for name, t in before.items()]
    assert same and (all(same) if statistics == "target" else not any(same))


@pytest.mark.parametrize("goes_on", [True, False])
def test_only_a_student_that_goes_on_keeps_its_statistics_in_distillation(goes_on: bool) -> None:
    task = DistillTask(network(), initial().distribution_K, choices(), goes_on=goes_on)
    before = {name: t.clone() for name, t in task.state_dict().items() if "running_" in name}
    descend(task, PAIR, steps=2)
    same = [torch.equal(t, task.state_dict()[name]) for name, t in before.items()]
    assert same and (all(same) if goes_on else not any(same))


def test_a_rare_class_weighs_more_on_source_and_target() -> None:
    alike, balanced = selflabel(balance=0.0), selflabel(balance=1.0)
    label = torch.arange(CLASSES)
    assert torch.equal(alike._balance(label), torch.ones(CLASSES))
    weight_K = balanced._balance(label)
    torch.testing.assert_close(weight_K[3] / weight_K[0], torch.tensor(4.0))  # shares 0.1 and 0.4


@pytest.mark.parametrize(
    "switch",
    [
        {"rectify": False},
        {"align": False},
        {"stratified": False},
        {"bank": 0},
        {"cutmix": 0.0},
        {"target_view": "weak"},
        {"temperature": 0.5},
        {"epsilon": 0.5},
        {"sinkhorn_iterations": 1},
        {"alpha": 0.5},
        {"beta": 1.0},
        {"trust": "alike"},
        {"rectify_by": "alike"},
        {"balance": 0.0},
        {"labels": "online"},
        {"distribution_momentum": 0.5},
        {"prototype_momentum": 0.5},
        {"teacher_view": "whole", "temperature": 0.081},
        {"teacher_mode": "train"},
        {"assign_by": "image"},
        {"bank_scores": "dot"},
        {"bank_labels": "misplaced", "stratified": False},
        {"kl_mean": "elements"},
        {"prototype_decay": 0.1},
        {"cutmix_by": "batch"},
        {"weight_contrast": 0.1},
        {"weight_logits": 0.1},
        {"weight_uniform": 0.1},
    ],
    ids=str,
)
def test_each_choice_of_stage_1_changes_what_is_learned(switch: dict[str, Any]) -> None:
    base = {"cutmix": 1.0, "epsilon": 0.05}
    ours, theirs = selflabel(**base), selflabel(**{**base, **switch})
    theirs.clusters.prototypes.load_state_dict(ours.clusters.prototypes.state_dict())
    assert descend(ours, PAIR, steps=4) != descend(theirs, PAIR, steps=4)


def test_the_bank_fills_and_the_distribution_follows_the_labels() -> None:
    task = selflabel(distribution_momentum=0.5)
    clusters = task.clusters
    before = clusters.distribution_K.clone()
    descend(task, PAIR)
    assert 0 < len(clusters.bank) <= 2 * 32 + CLASSES
    assert not torch.equal(clusters.distribution_K, before)
    assert float(clusters.distribution_K.sum()) == pytest.approx(1, abs=1e-5)


def test_the_teacher_is_in_eval_mode_and_untouched_by_gradients() -> None:
    task = selflabel()
    descend(task, PAIR)
    assert not task.teacher.training
    assert task.student.training
    assert all(not p.requires_grad for p in task.teacher.parameters())


def test_labels_reach_the_strong_view_where_the_image_goes() -> None:
    task, target = selflabel(), target_batch()
    label = torch.arange(WIDTH // STRIDE).repeat(2, HEIGHT // STRIDE, 1)
    moved = task.carrier.labels(label, target, IGNORE)
    assert torch.equal(moved[:, :, :-4], label[:, :, 2:-2])  # 8 pixels are 2 cells
    assert bool((moved[:, :, -4:] == IGNORE).all())


def test_state_restores_all_that_changes() -> None:
    task = selflabel()
    descend(task, PAIR, steps=2)
    twin = selflabel()
    twin.load_state_dict(task.state_dict())
    twin.optimizers[0].load_state_dict(task.optimizers[0].state_dict())
    assert descend(task, PAIR) == descend(twin, PAIR)


def test_patches_take_half_the_area_and_their_labels_along() -> None:
    torch.manual_seed(0)
    source = source_batch(count=64)
    patches = draw_patches(source, GRID, probability=1.0)
    area = patches.pasted_Bhw.float().mean(dim=(1, 2))
    assert float(area.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(area.min()) > 0.4
    blank = torch.zeros_like(source.image_BCHW)
    pasted = patches.paste(blank)
    inside = patches.pasted_Bhw.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)[:, None].expand_as(blank)
    assert torch.equal(pasted[inside], source.image_BCHW[inside])
    assert not bool(pasted[~inside].any())
    label = patches.paste_labels(torch.full(patches.pasted_Bhw.shape, 77))
    assert torch.equal(label == 77, ~patches.pasted_Bhw)
    assert not bool(draw_patches(source, GRID, probability=0.0).pasted_Bhw.any())


def test_only_confident_valid_pixels_become_labels() -> None:
    soft = torch.tensor([[0.97, 0.5, 0.97], [0.03, 0.5, 0.03]]).reshape(1, 2, 1, 3)
    valid = torch.tensor([[[True, True, False]]])
    assert confident_labels(soft, 0.95, valid).flatten().tolist() == [0, IGNORE, IGNORE]


def test_a_teacher_of_temperature_one_is_itself_and_softer_above() -> None:
    soft = torch.tensor([0.9, 0.1]).reshape(1, 2, 1, 1)
    same = DistillTask(network(), initial().distribution_K, choices())._softened(soft)
    softer = DistillTask(network(), initial().distribution_K, choices(distill={"temperature": 2.0}))._softened(soft)
    torch.testing.assert_close(same, soft)
    assert float(softer.max()) < 0.9
    torch.testing.assert_close(softer.sum(dim=1), torch.ones(1, 1, 1))


def test_enlarging_keeps_cells_over_their_pixels() -> None:
    logits = torch.zeros(1, 2, 3, 3)
    logits[0, 1, 1, 1] = 9.0
    full = SupervisedTask(network(), choices(), recipe.Supervised()).to_pixels(logits, torch.zeros(1, 11, 12))
    assert full.shape == (1, 2, 11, 12)
    peak = (full[0, 1] == full[0, 1].max()).nonzero()
    assert int(peak.min()) >= 4 and int(peak.max()) < 8


def test_rare_classes_of_the_teachers_labels_weigh_more_on_the_source_of_distillation() -> None:
    def loss(balance: float, labels: int) -> float:
        task = DistillTask(network(), initial().distribution_K, choices(distill={"balance": balance}))
        source, target = PAIR
        label_BHW = torch.full_like(source.label_BHW, labels)
        return float(task.step((dataclasses.replace(source, label_BHW=label_BHW), target))["source"].detach())

    assert loss(1.0, 3) / loss(0.0, 3) == pytest.approx(4 * loss(1.0, 0) / loss(0.0, 0), rel=1e-5)  # shares 0.1, 0.4


def test_distillation_does_not_run_the_teacher() -> None:
    task = DistillTask(network(), initial().distribution_K, dataclasses.replace(choices()))
    calls: list[int] = []
    task.student.register_forward_hook(lambda *_: calls.append(1))
    descend(task, PAIR)
    assert len(calls) == 1


def official(**sections: dict[str, Any]) -> recipe.Recipe:
    return choices(method="official", **sections)  # type: ignore[arg-type]


def test_the_official_method_trains_every_stage() -> None:
    small = {"bank": 96, "pixels": 32}
    task = SelfLabelTask(network(), initial(), official(selflabel={**small, "cutmix": 0.0}))
    descend(task, PAIR, steps=2)
    assert float(descend(task, PAIR)["contrast"]) > 0, "the bank is full by now"
    terms = {"loss", "source", "target", "consistency", "selflabel", "logits", "contrast"}
    assert set(descend(SelfLabelTask(network(), initial(), official(selflabel=small)), PAIR)) == terms
    distill = DistillTask(network(), initial().distribution_K, official(), live_teacher=network(1).eval())
    assert descend(distill, PAIR)["distill"] < 0, "no divergence is negative"


def test_the_official_student_sees_each_view_alone_and_the_teacher_is_noisy() -> None:
    task = SelfLabelTask(network(), initial(), official())
    seen: list[tuple[int, ...]] = []
    task.student.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    descend(task, PAIR)
    assert seen == [(2, 3, HEIGHT, WIDTH)] * 3
    assert task.teacher.training and task.kept is task.student


def test_an_official_average_copies_statistics_and_has_no_ramp() -> None:
    task = SupervisedTask(network(), official(optimizer={"ema": 0.75}), recipe.Supervised())
    before = {k: v.clone() for k, v in task.teacher.state_dict().items()}
    descend(task, PAIR[0])
    now = task.student.state_dict()
    statistics = {name for name, _ in task.student.named_buffers()} & now.keys()
    assert any(name.endswith("running_mean") for name in statistics)
    for name, value in task.teacher.state_dict().items():
        expected = now[name] if name in statistics else before[name].lerp(now[name], 0.25)
        torch.testing.assert_close(value, expected)


def test_replayed_labels_move_too_far_in_wide_views() -> None:
    """The defect B11: the picture moves by 2 cells, the labels by 3 in a view 1.5 times as wide as high."""
    exact, replayed = selflabel(), SelfLabelTask(network(), initial(), choices(augment={"label_geometry": "replayed"}))
    label = torch.arange(WIDTH // STRIDE).repeat(2, HEIGHT // STRIDE, 1)
    assert exact.carrier.labels(label, target_batch(), IGNORE)[0, 0, 5] == 7
    assert replayed.carrier.labels(label, target_batch(), IGNORE)[0, 0, 5] == 8
    assert bool((replayed.carrier.valid(target_batch())[:, :, -3:] == 0).all())


def test_one_region_serves_the_whole_batch() -> None:
    torch.manual_seed(0)
    patches = draw_patches(source_batch(count=8), GRID, probability=1.0, by="batch")
    assert bool((patches.pasted_Bhw == patches.pasted_Bhw[0]).all()) and bool(patches.drawn_B.all())


def test_misplaced_pixels_have_labels_of_the_first_cells() -> None:
    clusters = selflabel(bank_labels="misplaced", stratified=False).clusters
    label = torch.arange(6).reshape(1, 2, 3) % CLASSES
    feat, logits = torch.randn(1, 16, 8, 9), torch.randn(1, CLASSES, 8, 9)
    (pixels,) = clusters.draw_misplaced(feat, logits, label)
    stretched = label.repeat_interleave(4, 1).repeat_interleave(3, 2).flatten()
    assert torch.equal(pixels.label_N, stretched[:32])
    everywhere = feat.flatten(2)[0].T.tolist()
    assert all(row in everywhere for row in pixels.feat_ND.tolist())


def test_image_by_image_the_bank_is_used_once_it_is_full() -> None:
    clusters = selflabel(assign_by="image", bank=40, pixels=32, stratified=False).clusters
    feat, logits = torch.randn(2, 16, 8, 9), torch.randn(2, CLASSES, 8, 9)
    groups = clusters.draw(feat, logits, torch.randint(0, CLASSES, (2, 8, 9)))
    assert [len(group.label_N) for group in groups] == [32, 32]
    assert len(clusters._remembered(clusters.bank)) == 0
    clusters.losses(groups[:1])
    assert len(clusters.bank) == 32 and len(clusters._remembered(clusters.bank)) == 0
    clusters.losses(groups[1:])
    assert len(clusters._remembered(clusters.bank)) == 40
