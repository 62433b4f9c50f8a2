"""Spread over seeds, with scipy as oracle."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softprompts.analysis.statistics import spread


def test_spread_agrees_with_scipy():
    scores = [0.61, 0.55, 0.7, 0.64, 0.58]
    found = spread(scores)
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.std == pytest.approx(np.std(scores, ddof=1))
    assert (found.min, found.max) == (0.55, 0.7)
    expected = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_what_needs_more_scores_is_none():
    assert spread([]).mean is None
    one = spread([0.5])
    assert (one.mean, one.min, one.max) == (0.5, 0.5, 0.5)
    assert one.std is None
    assert one.interval is None
