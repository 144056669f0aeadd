from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Split
from tidemill.errors import TrainingDataError
from tidemill_training.split import check_outcomes, split_by_time

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
DAILY = np.array([to_micros(NEW_YEAR + timedelta(days=day)) for day in range(100)])


def days(test: int, validation: int = 0) -> Split:
    return Split(test=timedelta(days=test), validation=timedelta(days=validation))


def test_the_last_part_is_tested_on_and_the_part_before_it_validated_on():
    parts = split_by_time(DAILY, days(20, 10))
    assert (parts.fit, parts.validate, parts.later) == (slice(0, 70), slice(70, 80), slice(80, 100))
    assert parts.test_start == NEW_YEAR + timedelta(days=79)


def test_every_test_row_is_later_than_every_row_fitted_on():
    random = np.random.default_rng(0)
    times = np.sort(random.choice(DAILY, 1_000))
    parts = split_by_time(times, days(30, 10))
    assert (
        times[parts.fit].max() < times[parts.validate].min() <= times[parts.validate].max() < times[parts.later].min()
    )
    assert times[parts.later].min() > to_micros(parts.test_start)


def test_without_a_validation_part_everything_before_the_test_is_fitted_on():
    parts = split_by_time(DAILY, days(20))
    assert (parts.fit.stop, parts.validate.stop) == (80, 80)


def test_no_rows_are_refused():
    with pytest.raises(TrainingDataError, match="has no rows"):
        split_by_time(DAILY[:0], days(1))


@pytest.mark.parametrize(("split", "missing"), [(days(200), "to fit on"), (days(50, 50), "to fit on")])
def test_too_little_history_says_what_is_left_empty(split: Split, missing: str):
    with pytest.raises(TrainingDataError, match=f"2013-01-01 .* 2013-04-10 .*{missing}"):
        split_by_time(DAILY, split)


def test_a_gap_where_the_validation_part_should_be_is_refused():
    times = np.concatenate([DAILY[:50], DAILY[90:]])
    with pytest.raises(TrainingDataError, match="to validate on"):
        split_by_time(times, days(20, 10))


def test_outcomes_all_alike_are_refused_before_anything_is_fitted():
    parts = split_by_time(DAILY, days(20, 10))
    outcomes = np.zeros(100, dtype=np.int8)
    with pytest.raises(TrainingDataError, match="None of the 70 labels to be fitted on is positive"):
        check_outcomes(outcomes, parts)
    outcomes[3] = 1
    with pytest.raises(TrainingDataError, match="None of the 20 labels to be tested on is positive"):
        check_outcomes(outcomes, parts)
    with pytest.raises(TrainingDataError, match="All 70 labels"):
        check_outcomes(np.ones(100, dtype=np.int8), parts)
    outcomes[90] = 1
    check_outcomes(outcomes, parts)
