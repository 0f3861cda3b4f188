"""Properties that the pieces of the method must have, whatever their input."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.selflabel import (
    MemoryBank,
    PrototypeMeans,
    Prototypes,
    class_weights,
    contrast,
    corrected,
    cross_entropy,
    follow,
    kl_divergence,
    label_shares,
    reach,
    rectify,
    reverse_cross_entropy,
    self_labelling,
    similarity,
    sinkhorn,
    stratified_sample,
    symmetric_cross_entropy,
    uniform_sample,
)

seeds = st.integers(0, 2**31)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distribution(classes: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(classes, generator=generator).add(0.05).square().softmax(dim=0)


class TestSinkhorn:
    @settings(max_examples=30, deadline=None)
    @given(seeds, st.integers(1, 40), st.integers(1, 12), st.floats(0.01, 0.5))
    def test_rows_are_distributions(self, seed: int, pixels: int, classes: int, epsilon: float) -> None:
        generator = random(seed)
        scores = torch.rand(pixels, classes, generator=generator) * 2 - 1
        assign = sinkhorn(scores, distribution(classes, generator), epsilon)
        assert assign.shape == scores.shape
        assert bool((assign >= 0).all())
        torch.testing.assert_close(assign.sum(dim=1), torch.ones(pixels), rtol=0, atol=1e-5)

    def test_class_shares_are_met_when_converged(self) -> None:
        generator = random(0)
        scores = torch.rand(500, 7, generator=generator) * 2 - 1
        wanted = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.03, 0.015, 0.005])
        assign = sinkhorn(scores, wanted, epsilon=0.2, iterations=200)
        torch.testing.assert_close(assign.mean(dim=0), wanted, rtol=1e-3, atol=1e-5)

    def test_is_the_plan_of_an_independent_solver(self) -> None:
        ot = pytest.importorskip("ot")
        scores = torch.rand(60, 5, generator=random(1)).double() * 2 - 1
        wanted = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).double()
        plan = ot.sinkhorn(torch.full((60,), 1 / 60).double(), wanted, -scores, reg=0.1, stopThr=1e-12)
        ours = sinkhorn(scores, wanted, epsilon=0.1, iterations=500)
        torch.testing.assert_close(ours.double() / 60, plan, rtol=1e-3, atol=1e-7)

    def test_a_rare_class_is_not_swallowed(self) -> None:
        """Two clouds of pixels and a prior that knows of the small one: transport keeps them apart, argmax does not."""
        scores = torch.tensor([[0.9, 0.1]] * 95 + [[0.55, 0.5]] * 5)
        assert bool((scores.argmax(dim=1) == 0).all())
        assign = sinkhorn(scores, torch.tensor([0.95, 0.05]), iterations=50)
        assert bool((assign[95:].argmax(dim=1) == 1).all())
        assert bool((assign[:95].argmax(dim=1) == 0).all())

    def test_a_class_of_no_share_gets_nothing_and_the_rest_is_finite(self) -> None:
        assign = sinkhorn(torch.rand(20, 3, generator=random(2)), torch.tensor([0.5, 0.0, 0.5]))
        assert bool(torch.isfinite(assign).all())
        assert float(assign[:, 1].sum()) == 0

    def test_half_precision_and_a_tiny_epsilon_do_not_overflow(self) -> None:
        scores = (torch.rand(20, 3, generator=random(3)) * 2 - 1).half()
        assert bool(torch.isfinite(sinkhorn(scores, torch.ones(3), epsilon=1e-3)).all())

    def test_no_share_at_all_is_never_hidden(self) -> None:
        assert bool(sinkhorn(torch.zeros(4, 2), torch.zeros(2)).isnan().all())

    @pytest.mark.parametrize("iterations", [1, 3, 5, 50])
    @pytest.mark.parametrize("epsilon", [0.005, 0.05, 0.5])
    def test_is_what_logarithms_of_double_precision_find(self, iterations: int, epsilon: float) -> None:
        """Also where exp(score / epsilon) is beyond float32, and for a class that hardly ever occurs."""
        scores, wanted = torch.rand(300, 5, generator=random(4)) * 2 - 1, torch.tensor([1e-9, 0.1, 0.4, 0.2, 0.3])
        log_plan = scores.double() / epsilon
        for _ in range(iterations):
            log_plan = (log_plan + wanted.double().log() - log_plan.logsumexp(dim=0)).log_softmax(dim=1)
        ours = sinkhorn(scores[:40], wanted, epsilon, iterations, remembered_MK=scores[40:])
        torch.testing.assert_close(ours, log_plan[:40].exp().float(), rtol=0, atol=1e-4)

    def test_is_a_library_s_after_as_many_iterations(self) -> None:
        """To 1e-5 on one matrix, and with the rest of it in a bank."""
        ot = pytest.importorskip("ot")
        scores, wanted = torch.rand(2000, 19, generator=random(5)) * 2 - 1, distribution(19, random(6))
        with warnings.catch_warnings(action="ignore"):  # it has not converged
            plan = ot.sinkhorn(torch.full((2000,), 1 / 2000), wanted, -scores, reg=0.05, numItermax=3, stopThr=0)
        for ours in (sinkhorn(scores, wanted), sinkhorn(scores[:100], wanted, remembered_MK=scores[100:])):
            torch.testing.assert_close(ours, plan[: len(ours)] * 2000, rtol=0, atol=1e-5)


class TestSampling:
    def test_proportions_are_those_of_the_distribution(self) -> None:
        labels = torch.arange(4).repeat(5000)
        wanted = torch.tensor([0.7, 0.2, 0.08, 0.02])
        chosen = stratified_sample(labels, wanted, 1000, random(0))
        assert torch.equal(torch.bincount(labels[chosen], minlength=4), torch.tensor([700, 200, 80, 20]))

    def test_a_share_below_one_pixel_is_met_on_average(self) -> None:
        labels = torch.arange(2).repeat(100)
        wanted = torch.tensor([0.997, 0.003])  # 0.3 pixels of 100
        drawn = [int((labels[stratified_sample(labels, wanted, 100, random(i))] == 1).sum()) for i in range(500)]
        assert set(drawn) == {0, 1}
        assert 0.22 < sum(drawn) / 500 < 0.38

    @settings(max_examples=30, deadline=None)
    @given(seeds, st.integers(0, 300), st.integers(1, 200))
    def test_draws_each_pixel_once_and_no_ignored_one(self, seed: int, pixels: int, count: int) -> None:
        generator = random(seed)
        labels = torch.randint(-1, 6, (pixels,), generator=generator)
        labels[labels == -1] = 255
        for chosen in (
            stratified_sample(labels, distribution(5, generator), count, generator),
            uniform_sample(labels, 5, count, generator),
        ):
            assert len(chosen.unique()) == len(chosen)
            assert bool((labels[chosen] < 5).all())
        assert len(uniform_sample(labels, 5, count, generator)) == min(count, int((labels < 5).sum()))

    def test_what_a_class_lacks_is_not_filled_with_others(self) -> None:
        labels = torch.tensor([0] * 1000 + [1] * 3)
        chosen = stratified_sample(labels, torch.tensor([0.5, 0.5]), 100, random(0))
        assert torch.bincount(labels[chosen]).tolist() == [50, 3]


class TestMemoryBank:
    def test_keeps_the_latest_features_with_their_labels(self) -> None:
        bank = MemoryBank(capacity=5, channels=2)
        for start in (0, 3, 6):
            values = torch.arange(start, start + 3)
            bank.push(values[:, None].repeat(1, 2).float(), values)
            assert len(bank) == min(start + 3, 5)
            assert torch.equal(bank.features()[:, 0].long(), bank.labels())
        assert sorted(bank.labels().tolist()) == [4, 5, 6, 7, 8]

    def test_a_push_longer_than_the_bank_leaves_its_end(self) -> None:
        bank = MemoryBank(capacity=3, channels=1)
        bank.push(torch.arange(8)[:, None].float(), torch.arange(8))
        assert sorted(bank.labels().tolist()) == [5, 6, 7]

    def test_without_capacity_it_stays_empty(self) -> None:
        bank = MemoryBank(capacity=0, channels=4)
        bank.push(torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
        assert bank.features().shape == (0, 4)

    def test_its_state_restores_what_comes_next(self) -> None:
        bank, other = MemoryBank(4, 1), MemoryBank(4, 1)
        bank.push(torch.arange(6)[:, None].float(), torch.arange(6))
        other.load_state_dict(bank.state_dict())
        for b in (bank, other):
            b.push(torch.tensor([[9.0]]), torch.tensor([9]))
        assert torch.equal(bank.features(), other.features())


class TestPrototypes:
    def test_means_are_over_pixels_then_images_and_skip_specks(self) -> None:
        feat = torch.zeros(2, 1, 4, 5)
        logits = torch.zeros(2, 3, 4, 5)
        feat[0, 0] = 2.0  # image 0: class 0 everywhere
        feat[1, 0, :2], feat[1, 0, 2:] = 4.0, 10.0  # image 1: 10 pixels of class 0, 10 of class 1 …
        logits[1, 1, 2:] = 5.0
        logits[0, 2, 0, 0] = 9.0  # … and one speck of class 2
        means = PrototypeMeans(3, 1)
        means.add(feat, logits)
        fallback = torch.full((3, 1), -1.0)
        assert means.means(fallback).squeeze(1).tolist() == [3.0, 10.0, -1.0]
        assert means.images_K.tolist() == [2, 1, 0]

    def test_the_average_follows(self) -> None:
        prototypes = Prototypes(torch.zeros(2, 3), momentum=0.9)
        with torch.no_grad():
            prototypes.weight_KD.fill_(1.0)
        prototypes.update()
        torch.testing.assert_close(prototypes.average_KD, torch.full((2, 3), 0.1))

    def test_the_self_labelling_loss_moves_prototypes_and_not_features(self) -> None:
        feat = torch.randn(8, 4, generator=random(0)).requires_grad_()
        proto = torch.randn(2, 4, generator=random(1)).requires_grad_()
        assign = torch.eye(2).repeat(4, 1)
        loss = self_labelling(feat, proto, assign)
        loss.backward()
        assert feat.grad is None
        assert proto.grad is not None
        with torch.no_grad():
            assert self_labelling(feat, proto - 0.05 * proto.grad, assign) < loss
        before, after = similarity(feat, proto), similarity(feat, proto - 0.05 * proto.grad)
        assert (after * assign).sum() > (before * assign).sum()


class TestRectify:
    def test_prototypes_overrule_a_doubtful_label_but_not_a_class_ruled_out(self) -> None:
        proto = torch.eye(3)
        feat = torch.tensor([[0.0, 1.0, 0.0]]).T.reshape(1, 3, 1, 1).repeat(1, 1, 1, 2)
        soft = torch.tensor([[0.6, 0.4, 0.0], [0.6, 0.0, 0.4]]).T.reshape(1, 3, 1, 2)
        found = rectify(soft, feat, proto)
        assert found.label_Bhw.flatten()[0] == 1
        assert found.label_Bhw.flatten()[1] != 1
        assert bool((found.confidence_Bhw <= 1).all())

    def test_the_pixels_of_a_rare_class_keep_their_labels(self) -> None:
        """Prototypes say the third class of all cells; a cell of the rare second one is out of their reach."""
        feat = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 2)
        soft = torch.tensor([[0.6, 0.0, 0.4], [0.0, 0.6, 0.4]]).T.reshape(1, 3, 1, 2)
        shares = torch.tensor([0.6, 0.0, 0.4])
        assert rectify(soft, feat, torch.eye(3)).label_Bhw.flatten().tolist() == [2, 2]
        assert rectify(soft, feat, torch.eye(3), reach_K=reach(shares)).label_Bhw.flatten().tolist() == [2, 1]

    def test_reach_is_the_share_of_the_mean_share(self) -> None:
        assert reach(torch.tensor([0.7, 0.2, 0.05, 0.05])).tolist() == pytest.approx([1, 0.8, 0.2, 0.2])

    def test_classes_within_reach_are_corrected_as_in_the_paper(self) -> None:
        soft, feat, proto = torch.rand(2, 3, 4, 5), torch.randn(2, 6, 4, 5), torch.randn(3, 6)
        plain, reached = rectify(soft, feat, proto), rectify(soft, feat, proto, reach_K=torch.ones(3))
        for ours, theirs in zip(reached, plain, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_clusters_move_cells_as_little_into_a_rare_class_as_out_of_it(self) -> None:
        """To the power of both classes' reach, whichever of them the soft label says."""
        soft, weight = torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8])
        for rare in (0, 1):
            reach_K = torch.ones(2)
            reach_K[rare] = 0.1
            maps = soft[None, :, None, None], weight[None, :, None, None]
            found = corrected(*maps, reach_K).flatten()
            assert (found[0] / found[1]).item() == pytest.approx(0.6 / 0.4 * (0.2 / 0.8) ** 0.1)

    def test_beyond_reach_soft_labels_stay_however_sure_the_clusters_are(self) -> None:
        soft, weight = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
        reach_K = torch.tensor([1.0, 0.0, 0.0])
        found = corrected(soft[None, :, None, None], weight[None, :, None, None], reach_K)
        assert found.flatten().tolist() == soft.tolist()

    def test_nothing_known_is_no_nan(self) -> None:
        found = rectify(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2), torch.zeros(3, 4))
        assert bool(torch.isfinite(found.confidence_Bhw).all())


class TestDistribution:
    def test_shares_ignore_what_is_no_class(self) -> None:
        assert label_shares(torch.tensor([0, 0, 1, 255]), 3).tolist() == pytest.approx([2 / 3, 1 / 3, 0])

    def test_follows_with_momentum_and_rests_without_labels(self) -> None:
        shares = torch.tensor([0.5, 0.5])
        follow(shares, torch.tensor([0, 0]), momentum=0.9)
        assert shares.tolist() == pytest.approx([0.55, 0.45])
        follow(shares, torch.tensor([255]), momentum=0.9)
        assert shares.tolist() == pytest.approx([0.55, 0.45])


class TestLosses:
    def test_ignored_pixels_carry_neither_loss_nor_gradient(self) -> None:
        logits = torch.randn(1, 3, 2, 2, generator=random(0)).requires_grad_()
        label = torch.tensor([[[0, 255], [2, 255]]])
        symmetric_cross_entropy(logits, label).backward()
        assert logits.grad is not None
        assert bool((logits.grad[..., 1] == 0).all())
        assert bool((logits.grad[..., 0] != 0).any())

    def test_all_ignored_is_zero(self) -> None:
        logits, label = torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 255)
        assert float(cross_entropy(logits, label)) == 0
        assert float(reverse_cross_entropy(logits, label)) == 0

    def test_kl_is_zero_for_equals_and_positive_else(self) -> None:
        logits = torch.randn(1, 4, 3, 3, generator=random(1))
        assert float(kl_divergence(logits.softmax(dim=1), logits)) == pytest.approx(0, abs=1e-6)
        assert float(kl_divergence(logits.softmax(dim=1), -logits)) > 0

    def test_kl_of_a_certain_teacher_is_the_cross_entropy(self) -> None:
        logits = torch.randn(1, 4, 3, 3, generator=random(2))
        label = torch.randint(0, 4, (1, 3, 3), generator=random(3))
        certain = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
        torch.testing.assert_close(kl_divergence(certain, logits), cross_entropy(logits, label))


class TestContrast:
    @settings(max_examples=40, deadline=None)
    @given(seeds, st.integers(1, 12), st.integers(0, 20), st.integers(1, 5), st.floats(0.05, 1))
    def test_is_the_formula_and_its_gradient(
        self, seed: int, pixels: int, bank: int, classes: int, temperature: float
    ) -> None:
        generator = random(seed)
        feat_ND = torch.randn(pixels, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        bank_MD = torch.randn(bank, 4, generator=generator, dtype=torch.float64)
        label_N, bank_label_M = (torch.randint(classes, (n,), generator=generator) for n in (pixels, bank))
        exp_NM = (similarity(feat_ND, bank_MD) / temperature).exp()
        same_NM = label_N[:, None] == bank_label_M
        others_N1 = exp_NM.where(~same_NM, 0).sum(dim=1, keepdim=True)
        log_prob_NM = (exp_NM / (exp_NM + others_N1)).log().where(same_NM, 0)
        wanted = -(log_prob_NM.sum(dim=1) / same_NM.sum(dim=1).clamp(min=1)).mean()
        found = contrast(feat_ND, label_N, bank_MD, bank_label_M, temperature)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(loss, feat_ND)[0] for loss in (found, wanted)))

    def test_pixels_go_to_their_class_and_from_others(self) -> None:
        feat_ND = torch.tensor([[1.0, 1.0]], requires_grad=True)
        contrast(feat_ND, torch.tensor([0]), torch.eye(2), torch.tensor([0, 1])).backward()
        assert feat_ND.grad is not None
        assert feat_ND.grad[0, 0] < 0 < feat_ND.grad[0, 1]


def test_class_weights_balance_in_the_mean() -> None:
    share_K = torch.tensor([0.5, 0.3, 0.19, 0.01])
    torch.testing.assert_close(class_weights(share_K, 0.0), torch.ones(4))
    half_K, full_K = class_weights(share_K, 0.5), class_weights(share_K, 1.0)
    for weight_K in (half_K, full_K):
        torch.testing.assert_close((share_K * weight_K).sum(), torch.tensor(1.0))
    torch.testing.assert_close(share_K * full_K, torch.full((4,), 0.25))  # a class counts as much as any other
    torch.testing.assert_close(half_K[3] / half_K[0], torch.tensor(50.0).sqrt())
    absent_K = class_weights(torch.tensor([0.6, 0.4, 0.0]), 1.0)
    assert absent_K.isfinite().all() and absent_K[2] / absent_K[0] == pytest.approx(0.6 / 2e-3, rel=1e-4)


def test_a_pixel_that_is_not_trusted_teaches_nothing() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 4, 4))
    weight = torch.ones(1, 4, 4)
    torch.testing.assert_close(
        symmetric_cross_entropy(logits, label, 1, 1, 255, weight), symmetric_cross_entropy(logits, label, 1, 1)
    )
    weight[0, 0, 0] = 0
    symmetric_cross_entropy(logits, label, 1, 1, 255, weight).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, 0, 0].any() and logits.grad[0, :, 0, 1].any()
