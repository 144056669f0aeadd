"""Drift: the index is exact on worked examples, silent on chance, and loud on a population that moved."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from tidemill.models.baseline import describe, describe_all
from tidemill.monitor.drift import Verdict, drift_of, jensen_shannon, psi, worst


def sample(rows: int, *, seed: int, shift: float = 0.0) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "delay": chance.normal(shift, 1.0, rows),
            "origin": chance.choice(["JFK", "EWR", "LGA"], rows, p=[0.4, 0.4, 0.2]),
            "hour": chance.integers(0, 24, rows),
            "weekend": chance.random(rows) < 0.3,
        }
    )


def test_the_index_is_the_sum_over_bins() -> None:
    then, now = np.array([0.5, 0.5]), np.array([0.4, 0.6])
    assert psi(then, now, rows_then=100, rows_now=100) == pytest.approx(-0.1 * math.log(0.8) + 0.1 * math.log(1.2))


def test_a_bin_that_was_empty_counts_as_half_a_row_and_not_as_infinite() -> None:
    found = psi(np.array([1.0, 0.0]), np.array([0.5, 0.5]), rows_then=1_000, rows_now=1_000)
    assert 0 < found < 10


def test_jensen_shannon_runs_from_0_to_1() -> None:
    assert jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


def test_a_population_that_stayed_is_stable_at_every_sample_size() -> None:
    baseline = describe_all(sample(20_000, seed=1))
    for rows in (60, 200, 1_000, 20_000):
        for seed in range(10):
            found = drift_of(baseline, sample(rows, seed=100 + seed))
            assert {drift.verdict for drift in found} == {Verdict.STABLE}, (rows, found)


def test_a_population_that_moved_is_found_and_named_first() -> None:
    baseline = describe_all(sample(20_000, seed=1))
    found = drift_of(baseline, sample(2_000, seed=2, shift=1.0))
    assert found[0].name == "delay"
    assert found[0].verdict is Verdict.DRIFTED
    assert "above" in found[0].moved
    assert {drift.verdict for drift in found[1:]} == {Verdict.STABLE}
    assert worst(found) is Verdict.DRIFTED


def test_new_categories_and_new_nulls_count_as_drift() -> None:
    then = pl.DataFrame({"origin": ["JFK"] * 500 + ["LGA"] * 500, "delay": [1.0, 2.0] * 500})
    now = pl.DataFrame({"origin": ["JFK"] * 500 + ["SFO"] * 500, "delay": [1.0, None] * 500})
    found = {drift.name: drift for drift in drift_of(describe_all(then), now)}
    assert found["origin"].verdict is Verdict.DRIFTED
    assert found["delay"].verdict is Verdict.DRIFTED
    assert found["delay"].nulls_now == 0.5


def test_a_handful_of_rows_gives_no_verdict() -> None:
    baseline = describe_all(sample(1_000, seed=1))
    assert {drift.verdict for drift in drift_of(baseline, sample(10, seed=2, shift=5))} == {Verdict.TOO_FEW}
    assert {drift.verdict for drift in drift_of(baseline, sample(0, seed=2))} == {Verdict.TOO_FEW}


@pytest.mark.parametrize(("then", "now"), [([5.0], [9.0]), ([5.0], [1.0]), ([0, 1], [0, 100])])
def test_a_feature_of_few_values_that_takes_others_has_drifted(then: list[float], now: list[float]):
    rows = 1_000 // len(then)
    baseline = describe(pl.Series("x", then * rows))
    moved, same = (drift_of([baseline], pl.DataFrame({"x": values * rows}))[0] for values in (now, then))
    assert moved.verdict == "drifted"
    assert (same.verdict, same.psi) == ("stable", 0)
