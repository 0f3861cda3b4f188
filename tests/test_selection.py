"""Choosing without labels: the score ranks, the choice is carried out, and a run that was killed makes the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from test_pipeline import tiny, weights

from acclimate import distributed, recipe, training
from acclimate.data import streets
from acclimate.data.datasets import evenly_spaced, open_images
from acclimate.data.geometry import Grid
from acclimate.evaluation import Confusion
from acclimate.journal import Journal
from acclimate.networks import Features, Segmenter, build
from acclimate.pipeline import adapt
from acclimate.recipe import Recipe
from acclimate.run import CANDIDATES, SELECTION, Run
from acclimate.selection import agreement, candidates, judge, look, steadiest, steadiness
from acclimate.selection.consensus import Estimate, Tallies, compare, estimate

CLASSES, HW = 4, (24, 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    streets.write(folder, source=3, target=4, val=2, seed=3, size=(48, 80))
    return folder


def short(data: Path, **changes: object) -> Recipe:
    """Source-only and warm-up, then stage 1, of three iterations with three candidates each."""
    return tiny(data, **{"distill__rounds": 0, "data__ceiling__path": "", "data__val__path": "", **changes})


def scenes(images: int = 6) -> torch.Tensor:
    """True labels N x h x w: a sky, a road, blocks of a frequent class, dots of a rare one."""
    rng = np.random.default_rng(0)
    label_NHW = torch.zeros(images, *HW, dtype=torch.long)
    label_NHW[:, HW[0] // 2 :] = 1
    for label_HW in label_NHW:
        top, left = rng.integers(0, 12), rng.integers(0, 20)
        label_HW[top : top + 10, left : left + 10] = 2
        label_HW[torch.from_numpy(rng.random(HW) < 0.02)] = 3
    return label_NHW


def guess(label_NHW: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """Probabilities N x K x h x w that follow from a noisy look at the labels."""
    drawn = torch.randn(len(label_NHW), CLASSES, *HW, generator=torch.Generator().manual_seed(seed))
    true_NKHW = torch.nn.functional.one_hot(label_NHW, CLASSES).movedim(-1, 1).float()
    return ((true_NKHW + noise * drawn) / noise**2).softmax(dim=1)


def estimates_of(networks: list[torch.Tensor]) -> list[Estimate]:
    rows_NM3K = np.stack([compare([prob_NKHW[image] for prob_NKHW in networks]) for image in range(len(networks[0]))])
    return [estimate(Tallies(*rows_NM3K[:, m].swapaxes(0, 1))) for m in range(len(networks))]


def true_iou(prob_NKHW: torch.Tensor, label_NHW: torch.Tensor) -> np.ndarray:
    confusion = Confusion(CLASSES)
    confusion.update(label_NHW, prob_NKHW.argmax(dim=1))
    return confusion.iou()


def test_better_predictions_have_higher_scores_also_the_best_of_all() -> None:
    """The best is no mean of the others, so that agreeing with these is not enough."""
    label_NHW = scenes()
    networks = [guess(label_NHW, noise, seed) for seed, noise in enumerate((0.3, 1.2, 0.5, 0.9, 0.7, 0.4))]
    true = [float(true_iou(prob, label_NHW).mean()) for prob in networks]
    found = estimates_of(networks)
    assert np.argsort([e.mean_iou for e in found]).tolist() == np.argsort(true).tolist()
    assert int(np.argmax(true)) == 0


def test_a_network_that_is_sure_of_one_class_can_expect_little() -> None:
    """Naive entropy would choose it."""
    label_NHW = scenes()
    good = [guess(label_NHW, noise, seed) for seed, noise in enumerate((0.4, 0.6, 0.8))]
    collapsed = torch.nn.functional.one_hot(torch.ones_like(label_NHW), CLASSES).movedim(-1, 1).float()
    *_, last, lost = (found.mean_iou for found in estimates_of([*good, collapsed]))
    assert lost < last


def test_losing_a_rare_class_costs_as_much_as_losing_a_large_one() -> None:
    label_NHW = scenes()
    good = [guess(label_NHW, 0.3, seed) for seed in range(3)]
    without_rare = good[0].clone()
    without_rare[:, 3] = 0
    without_rare /= without_rare.sum(dim=1, keepdim=True)
    *_, whole, lost = estimates_of([*good, without_rare])
    assert whole.mean_iou - lost.mean_iou > 0.1
    assert lost.iou_K[3] == 0


def test_the_estimate_is_the_iou_where_the_probabilities_are_right() -> None:
    """Labels are drawn from the probabilities themselves, so that these are calibrated."""
    prob_NKHW = guess(scenes(40), 0.6, 1)
    flat_PK = prob_NKHW.movedim(1, -1).reshape(-1, CLASSES)
    label_NHW = flat_PK.multinomial(1, generator=torch.Generator().manual_seed(2)).reshape(-1, *HW)
    (found,) = estimates_of([prob_NKHW])
    np.testing.assert_allclose(found.iou_K, true_iou(prob_NKHW, label_NHW), atol=0.02)
    assert found.mean_iou == pytest.approx(found.iou_K.mean())


def test_expected_iou_by_hand_and_its_error() -> None:
    """One image of two squares: class 0 is sure in one; in the other it is predicted with 3/4."""
    prob = torch.tensor([[[1.0, 0.75]], [[0.0, 0.25]]])
    (rows_3K,) = compare([prob])
    found = estimate(Tallies(*(row_K[None] for row_K in rows_3K)))
    np.testing.assert_allclose(found.iou_K, [1.75 / 2, 0])
    assert found.error == 0  # of one image there is no other choice
    two = Tallies(np.array([[2.0], [1.0]]), np.array([[2.0], [2.0]]), np.array([[2.0], [1.0]]))
    assert estimate(two).error > 0.05
    assert estimate(two).error == estimate(two).error_K[0]


def test_candidates_are_evenly_spaced_and_end_with_the_last_iteration() -> None:
    assert candidates.candidate_steps(180, 6) == [30, 60, 90, 120, 150, 180]
    assert candidates.candidate_steps(10, 3) == [4, 7, 10]
    assert candidates.candidate_steps(2, 6) == [1, 2]
    assert evenly_spaced(2, 8) == [2, 6] and evenly_spaced(9, 3) == [0, 1, 2]


def by_two_processes(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> Any:
    """What the first of two processes returns; the second hands over what it saw, so that the first has both."""
    parts: list[dict[int, np.ndarray]] = []
    for rank in (1, 0):
        monkeypatch.setattr(distributed, "share", lambda items, rank=rank: list(items)[rank::2])
        monkeypatch.setattr(distributed, "gathered", lambda seen, rank=rank: [*parts, parts.append(seen) or seen])
        if rank:
            with pytest.raises(KeyError):
                work()
    return work()


def test_judging_changes_nothing_and_processes_share_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    choices = recipe.Network(backbone="test_resnet.r160_in1k", weights="none", channels=16)
    networks = [build(choices, 5) for _ in range(2)]
    images = open_images(recipe.Folder(str(data / "target")), "target")
    state = torch.get_rng_state()
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    alone = judge(networks, images, 4, 80)
    assert all(network.training for network in networks)
    assert torch.equal(torch.get_rng_state(), state)
    for network, kept in zip(networks, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())

    shared = by_two_processes(monkeypatch, lambda: judge(networks, images, 4, 80))
    for one, both in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.iou_K, both.iou_K)
        assert one.error == both.error


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return adapt(short(data), tmp_path_factory.mktemp("run"))


class ByLook(torch.nn.Module):
    """Labels each pixel by itself: by its hue, which a change of light leaves, or by its brightness."""

    num_classes, stride, grid = 2, 1, Grid(1)

    def __init__(self, hue: bool) -> None:
        super().__init__()
        self.hue, self.weight = hue, torch.nn.Parameter(torch.zeros(()))

    def forward(self, image_BCHW: torch.Tensor) -> Features:
        red, green, _ = image_BCHW.unbind(1)
        score_BHW = red - green if self.hue else red - 0.72
        return Features(torch.stack([score_BHW, -score_BHW], dim=1), image_BCHW)


def test_a_network_that_keeps_its_labels_when_pictures_are_disturbed_agrees_more(tmp_path: Path) -> None:
    # Left half red, right half green; upper half bright. Mirrored labels count only when they are mirrored back.
    image_HWC = np.zeros((32, 64, 3), np.uint8)
    image_HWC[:, :32, 0], image_HWC[:, 32:, 1] = 200, 200
    image_HWC[16:] //= 4
    Image.fromarray(image_HWC).save(tmp_path / "one.png")
    images = open_images(recipe.Folder(str(tmp_path)), "target")
    steady, shaky = (agreement(look(cast(Segmenter, ByLook(hue)), images, 1, 64)) for hue in (True, False))
    assert steady == pytest.approx(1)
    assert shaky < 0.95


def test_processes_share_the_look(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(recipe.Folder(str(data / "target")), "target")
    network = build(recipe.Network(backbone="test_resnet.r160_in1k", weights="none", channels=16), 5)
    alone = look(network, images, 4, 80)
    assert alone.shape == (4, 4, 5, 5) and alone.sum() == 4 * 4 * 20 * 12
    np.testing.assert_array_equal(by_two_processes(monkeypatch, lambda: look(network, images, 4, 80)), alone)


def holding_on(share: float, images: int = 16) -> np.ndarray:
    """What `look` sees of a network that keeps two classes' labels of this share of the pixels, more or less."""
    rng = np.random.default_rng(0)
    kept_N = (1000 * (share + rng.uniform(-0.05, 0.05, images))).astype(int)
    return np.array([[[[kept, 1000 - kept], [1000 - kept, kept]]] for kept in kept_N])


def test_the_last_of_the_networks_that_cannot_be_told_apart_is_the_steadiest() -> None:
    good, bad = holding_on(0.8), holding_on(0.6)
    assert agreement(good) == pytest.approx(0.8 / 1.2, abs=0.03)
    noise = holding_on(0.8)[::-1] - np.array([[2, -2], [-2, 2]])  # a little lower, by other images
    for networks, last in (
        ([bad, good], 1),
        ([good, good], 1),
        ([good, bad], 0),
        ([good, noise], 1),
        ([good, noise, bad], 1),
    ):
        found = steadiness(networks)
        assert steadiest(found) == last
        assert found[0].agreement == agreement(networks[0])
    assert [one.error > 0 for one in found] == [False, True, True]


def test_a_network_that_sees_one_class_everywhere_is_not_the_steadiest() -> None:
    """It keeps all of its labels; so does one that has given up a rare class, of which the others saw enough."""

    good, without_rare, collapsed, one_mistake = (
        np.tile(np.array(matrix_KK), (16, 4, 1, 1))
        for matrix_KK in (
            [[450, 150, 0], [110, 280, 0], [0, 6, 4]],
            [[460, 140, 0], [100, 300, 0], [0, 0, 0]],
            [[1000, 0, 0], [0, 0, 0], [0, 0, 0]],
            [[9999, 0, 0], [0, 1, 0], [0, 0, 0]],  # less than a thousandth is no class
        )
    )
    assert agreement(collapsed) == 1 and agreement(without_rare) > agreement(good)
    assert steadiest(steadiness([good, collapsed])) == 0
    assert steadiest(steadiness([good, without_rare])) == 0
    assert steadiest(steadiness([one_mistake, collapsed])) == 1


def test_a_run_without_target_labels_chooses_and_estimates(finished: Run) -> None:
    among = json.loads((finished.folder / SELECTION).read_text())
    assert finished.best.read_bytes() == weights(finished, among["chosen"])
    for row in finished.results:
        estimate = row["estimate"]
        assert 0 <= estimate["mean_iou"] <= 1 and estimate["error"] >= 0 and len(estimate["iou"]) == 12
        assert row["chosen"] == (row["name"] == among["chosen"])
        assert "oracle" not in row and "mean_iou" not in row
    assert set(among["agreements"]) == {row["name"] for row in finished.results}
    for stage in ("warmup", "selflabel"):
        within = json.loads((finished.path(stage) / SELECTION).read_text())
        found = {row["step"]: row for row in within["candidates"]}
        highest = max(row["agreement"] for row in found.values())
        close = [step for step, row in found.items() if highest - row["agreement"] <= 2 * row["error"]]
        assert list(found) == [1, 2, 3] and within["chosen"] == close[-1]
    assert "estimated" in (finished.folder / "results.md").read_text()


def test_candidates_are_deleted_with_the_stage(finished: Run) -> None:
    assert not list(finished.folder.rglob(CANDIDATES))


def test_a_killed_run_makes_the_same_choice(
    finished: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def advance(self: Journal, step: int) -> None:
        if step == 3 and (tmp_path / "run/stages/warmup" / training.CHECKPOINT).exists():
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "advance", advance)
        adapt(short(data), tmp_path / "run")
    assert len(list((tmp_path / "run").rglob(f"{CANDIDATES}/*.safetensors"))) == 3
    run = adapt(short(data), tmp_path / "run")
    for name in (SELECTION, *(f"stages/{stage}/{SELECTION}" for stage in ("warmup", "selflabel"))):
        assert (run.folder / name).read_bytes() == (finished.folder / name).read_bytes()
    assert run.best.read_bytes() == finished.best.read_bytes()


def test_a_stage_goes_on_from_what_was_chosen_and_the_oracle_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first always chosen: candidate 1 of each stage, and the source-only model at the end."""
    monkeypatch.setattr(candidates, "steadiest", lambda found: 0)
    labelled = {"selection__keep": True, "data__val__path": data / "val", "selflabel__iterations": 0}
    run = adapt(short(data, **labelled), tmp_path / "run")
    assert weights(run, "warmup") == run.candidate("warmup", 1).read_bytes()
    assert weights(run, "warmup") != run.candidate("warmup", 3).read_bytes()
    assert run.best.read_bytes() == weights(run, "source")
    row = run.results[1]
    assert row["chosen_iteration"] == 1 and row["candidates"]["1"] == row["mean_iou"]
    assert row["oracle"]["mean_iou"] == max(row["candidates"].values())
    assert "oracle" in (run.folder / "results.md").read_text()
    last = adapt(short(data, **{**labelled, "selection__keep": False}, selection__by="last"), tmp_path / "last")
    assert weights(last, "warmup") == run.candidate("warmup", 3).read_bytes()  # learned as without any choice
    assert last.best.read_bytes() == weights(last, "warmup")
    assert not (last.path("warmup") / SELECTION).exists() and "oracle" not in last.results[1]
