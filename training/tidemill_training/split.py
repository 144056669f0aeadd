"""Splitting a training set by time: models are tested on what came later, as they will be in service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from tidemill.clock import to_micros
from tidemill.definitions.catalog import Split
from tidemill.errors import TrainingDataError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Row ranges of a training set in time order: `[0, validation)` to fit, `[validation, test)`, `[test, rows)`."""

    validation: int
    test: int
    rows: int
    validation_start: datetime
    test_start: datetime

    @property
    def fit(self) -> slice:
        return slice(0, self.validation)

    @property
    def validate(self) -> slice:
        return slice(self.validation, self.test)

    @property
    def later(self) -> slice:
        """The test part."""
        return slice(self.test, self.rows)


def split_by_time(times: np.ndarray, split: Split) -> Parts:
    """Cut ascending request times (int64 microseconds UTC) so that the last `split.test` of them is the test part.

    The parts are counted back from the newest request time, which belongs to the test part.
    Raises TrainingDataError where a part that was asked for is empty.
    """
    if not len(times):
        raise TrainingDataError("The training set has no rows.", hint="Is the label's source extracted up to then?")
    test_start = _instant(int(times[-1])) - split.test
    validation_start = test_start - split.validation
    validation, test = (
        int(np.searchsorted(times, to_micros(bound), side="right")) for bound in (validation_start, test_start)
    )
    parts = Parts(
        validation=validation, test=test, rows=len(times), validation_start=validation_start, test_start=test_start
    )
    _check(parts, split, _instant(int(times[0])), _instant(int(times[-1])))
    return parts


def check_outcomes(outcomes: np.ndarray, parts: Parts) -> None:
    """Raise TrainingDataError where fitting or testing would see one outcome only."""
    for name, part in (("fitted on", parts.fit), ("tested on", parts.later)):
        positives, rows = int(outcomes[part].sum()), len(outcomes[part])
        if positives == 0:
            raise TrainingDataError(
                f"None of the {rows:,} labels to be {name} is positive, so nothing can be learned or rated.",
                hint="Check the label's column, or take a longer interval.",
            )
        if positives == rows:
            raise TrainingDataError(
                f"All {rows:,} labels to be {name} are positive, so nothing can be learned or rated.",
                hint="Check the label's column, or take a longer interval.",
            )


def _check(parts: Parts, split: Split, first: datetime, last: datetime) -> None:
    wanted = [("to fit on", parts.fit), ("to test on", parts.later)]
    if split.validation > timedelta(0):
        wanted.append(("to validate on", parts.validate))
    empty = [name for name, part in wanted if part.start == part.stop]
    if empty:
        raise TrainingDataError(
            f"The labelled rows reach from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, and with "
            f"{split.test} to test on and {split.validation} to validate on nothing is left {' and '.join(empty)}.",
            hint="Train on more history, or declare shorter parts.",
        )


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
