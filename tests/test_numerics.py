"""Numbers at the edge: half precision, classes that never occur, nothing to learn from, values that are not finite."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import Line, train
from torch import Tensor
from torch.nn.functional import one_hot

from acclimate.errors import UserError
from acclimate.selflabel import (
    MemoryBank,
    PrototypeMeans,
    contrast,
    cross_entropy,
    kl_divergence,
    label_shares,
    rectify,
    reverse_cross_entropy,
    self_labelling,
    similarity,
    sinkhorn,
    stratified_sample,
    symmetric_cross_entropy,
    uniform_regulariser,
)
from acclimate.training import CHECKPOINT

seeds = st.integers(0, 2**31)
halves = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def draw(seed: int, *shape: int) -> Tensor:
    """Uniform in -1 … 1."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class TestSinkhorn:
    @settings(max_examples=60)
    @given(
        seeds, st.integers(0, 40), st.integers(0, 30), st.integers(1, 12), halves, st.floats(0.005, 1),
        st.sampled_from([0.0, 1e-3, 1.0, 1e4]), st.integers(1, 5), st.booleans(),
    )  # fmt: skip
    def test_whatever_comes_the_rows_are_distributions(
        self, seed: int, pixels: int, bank: int, classes: int, kind: torch.dtype, epsilon: float, scale: float,
        iterations: int, autocast: bool,
    ) -> None:  # fmt: skip
        scores = (draw(seed, pixels + bank, classes) * scale).to(kind)
        share = draw(seed + 1, classes).clamp(min=0)  # about half of the classes never occur …
        share[seed % classes] = 1e-12  # … and one hardly ever
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assign = sinkhorn(scores[:pixels], share, epsilon, iterations, remembered_MK=scores[pixels:])
        assert assign.dtype == torch.float32 and assign.shape == (pixels, classes)
        assert bool(assign.isfinite().all()) and bool((assign >= 0).all())
        torch.testing.assert_close(assign.sum(1), torch.ones(pixels), rtol=0, atol=1e-4)
        assert float(assign[:, share == 0].sum()) == 0

    def test_autocast_changes_nothing(self) -> None:
        scores, share = draw(0, 50, 5), torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0])
        with torch.autocast("cpu", torch.bfloat16):
            half = sinkhorn(scores, share)
        assert torch.equal(half, sinkhorn(scores, share))

    def test_one_class_takes_all(self) -> None:
        assert torch.equal(sinkhorn(draw(0, 9, 1), torch.ones(1)), torch.ones(9, 1))
        assert torch.equal(sinkhorn(draw(0, 9, 3), torch.tensor([0.0, 1.0, 0.0]))[:, 1], torch.ones(9))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_scores_that_are_not_finite_are_never_hidden(self, value: float) -> None:
        """No assignment is made up: the loss becomes non-finite, and the loop says which."""
        scores = draw(0, 9, 3)
        scores[4, 1] = value
        assert not bool(sinkhorn(scores, torch.ones(3)).isfinite().all())
        assert not bool(sinkhorn(draw(0, 9, 3), torch.ones(3), remembered_MK=scores).isfinite().all())

    def test_a_class_that_no_pixel_is_near_gets_its_share_all_the_same(self) -> None:
        scores = torch.cat([draw(0, 400, 2) * 0.1, torch.full((400, 1), -1.0)], dim=1)
        assert float(sinkhorn(scores, torch.ones(3), iterations=100)[:, 2].mean()) == pytest.approx(1 / 3, abs=0.01)


class TestLosses:
    @settings(max_examples=40)
    @given(seeds, st.integers(2, 6), halves, st.floats(1e-3, 1e4), st.sampled_from(["some", "none", "all"]))
    def test_finite_with_finite_gradients(
        self, seed: int, classes: int, kind: torch.dtype, scale: float, ignored: str
    ) -> None:
        logits = (draw(seed, 2, classes, 3, 4) * scale).to(kind).requires_grad_()
        label = (draw(seed + 1, 2, 3, 4).abs() * classes).long().clamp(max=classes - 1)
        hidden = {"some": draw(seed + 2, 2, 3, 4) > 0, "none": False, "all": True}[ignored]
        label = torch.where(torch.as_tensor(hidden), 255, label)
        teacher = one_hot(label % classes, classes).movedim(-1, 1).float()
        losses = [
            cross_entropy(logits, label),
            reverse_cross_entropy(logits, label),
            symmetric_cross_entropy(logits, label),
            kl_divergence(teacher, logits, label != 255),
            kl_divergence(torch.zeros_like(teacher), logits, mean="elements"),
            uniform_regulariser(logits),
        ]
        for loss in losses:
            assert loss.dtype == torch.float32 and bool(loss.isfinite())
        sum(losses).backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())
        if ignored == "all":
            assert [loss.item() for loss in losses[:4]] == [0, 0, 0, 0]

    @settings(max_examples=40)
    @given(seeds, st.integers(0, 8), st.integers(1, 8), halves, st.sampled_from([0.01, 0.08, 1.0]))
    def test_clusters(self, seed: int, pixels: int, bank: int, kind: torch.dtype, temperature: float) -> None:
        feat = draw(seed, pixels, 4).to(kind).requires_grad_()
        proto = draw(seed + 1, 3, 4).requires_grad_()
        with torch.no_grad():
            proto[0] = 0  # a class that was never seen, without weights of a classifier
        losses = [
            self_labelling(feat, proto, torch.full((pixels, 3), 1 / 3), temperature),
            contrast(feat, torch.arange(pixels) % 3, draw(seed + 2, bank, 4), torch.arange(bank) % 2, temperature),
        ]
        for loss in losses:
            assert bool(loss.isfinite())
        sum(losses).backward()
        assert proto.grad is not None and bool(proto.grad.isfinite().all())
        assert pixels == 0 or (feat.grad is not None and bool(feat.grad.isfinite().all()))

    def test_a_bank_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def learned() -> tuple[Tensor, Tensor]:
            feat = draw(0, 6, 4).requires_grad_()
            loss = contrast(feat, torch.arange(6) % 3, draw(1, 10, 4), torch.arange(10) % 4 % 3, 0.08)
            loss.backward()
            assert feat.grad is not None
            return loss.detach(), feat.grad

        at_once = learned()
        monkeypatch.setattr(import_module("acclimate.selflabel.contrast"), "BANK_PART", 3)
        torch.testing.assert_close(learned(), at_once)

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
    def test_features_of_length_zero(self, kind: torch.dtype) -> None:
        assert bool(similarity(torch.zeros(3, 4, dtype=kind), torch.zeros(2, 4)).isfinite().all())
        found = rectify(torch.zeros(1, 2, 1, 3), torch.zeros(1, 4, 1, 3, dtype=kind), torch.zeros(2, 4))
        assert bool(found.confidence_Bhw.isfinite().all())


class TestNothingThere:
    def test_no_labels_no_pixels_no_shares(self) -> None:
        nothing = torch.full((5,), 255)
        assert label_shares(nothing, 3).tolist() == [0, 0, 0]
        assert len(stratified_sample(nothing, torch.ones(3) / 3, 10)) == 0
        assert len(stratified_sample(nothing[:0], torch.ones(3) / 3, 10)) == 0
        assert float(self_labelling(torch.zeros(0, 4), torch.ones(2, 4), torch.zeros(0, 2))) == 0
        assert bool(PrototypeMeans(3, 4).means().isfinite().all())
        bank = MemoryBank(4, 2)
        bank.push(torch.zeros(0, 2), nothing[:0])
        assert len(bank) == 0


@pytest.mark.parametrize("where", ["average", "unused"])
def test_what_is_not_finite_beside_the_loss_is_noticed_at_the_next_log_line(tmp_path: Path, where: str) -> None:
    def poison(task: Line) -> None:
        if task.steps == 7:
            with torch.no_grad():
                dict(task.state_dict(keep_vars=True))[where][1] = float("nan")

    task = Line()
    task.register_buffer("average", torch.zeros(3))  # as a teacher's weights are
    task.unused = torch.nn.Parameter(torch.zeros(3))
    task.after_step = lambda: poison(task)  # type: ignore[method-assign]
    with pytest.raises(UserError, match=f"before iteration 8 \\({where}\\)") as caught:
        train(tmp_path, task)
    assert str(tmp_path / CHECKPOINT) in str(caught.value)
    content = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert content["state"]["step"] == 4 and bool(content["task"][where].isfinite().all())
