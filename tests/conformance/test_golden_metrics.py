"""Metrics agree with the official implementation."""

from __future__ import annotations

import pytest
import torch

from acclimate.evaluation import Confusion


def test_metrics_agree(golden):
    given = golden("metrics")
    confusion = Confusion(19, ignore=given["ignore_index"])
    confusion.update(given["labels"], given["predictions"])
    torch.testing.assert_close(torch.from_numpy(confusion.iou()), given["class_iou"].double(), equal_nan=True)
    assert confusion.mean_iou() == pytest.approx(given["mean_iou"], abs=1e-9)
    assert confusion.accuracy() == pytest.approx(given["overall_acc"], abs=1e-9)
    assert confusion.mean_accuracy() == pytest.approx(given["mean_acc"], abs=1e-9)
    assert confusion.frequency_weighted_iou() == pytest.approx(given["freq_weighted_iou"], abs=1e-9)
