"""The sketch of distinct values: the same on every machine, close to the truth, blind to a number's type."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tidemill.definitions.distinct import REGISTERS, estimate, registers_of


def sketch(values: pl.Series) -> int:
    registers = np.zeros(REGISTERS, dtype=np.uint8)
    np.maximum.at(registers, *registers_of(values))
    return int(estimate(registers[None, :])[0])


@pytest.mark.parametrize("count", [0, 1, 10, 100, 1_000, 100_000])
@pytest.mark.parametrize("text", [False, True])
def test_estimates_are_within_three_standard_errors(count: int, text: bool) -> None:
    numbers = pl.Series(np.arange(count))
    values = "flight-" + numbers.cast(pl.String) if text else numbers
    assert abs(sketch(pl.concat([values, values])) - count) <= 3 * 0.065 * count + 0.5


def test_a_value_has_the_same_register_on_every_machine() -> None:
    # The published first outputs of splitmix64 for the states 0 and 1 are e220a839... and 910a2dec...
    index, run = registers_of(pl.Series([0, 1, -1, 2**40]))
    assert (index.tolist(), run.tolist()) == ([226, 145, 228, 31], [3, 5, 1, 1])
    index, run = registers_of(pl.Series(["", "JFK", "Zürich"]))
    assert (index.tolist(), run.tolist()) == ([0, 103, 166], [57, 5, 2])


def test_equal_numbers_of_any_type_are_one_value() -> None:
    columns = [
        pl.Series([5, 1], dtype=pl.Int8),
        pl.Series([5, 1], dtype=pl.UInt64),
        pl.Series([5.0, 1.0]),
        pl.Series([5.0, 1.0], dtype=pl.Float32),
    ]
    assert len({tuple(map(tuple, (side.tolist() for side in registers_of(column)))) for column in columns}) == 1
    assert registers_of(pl.Series([True]))[0] == registers_of(pl.Series([1]))[0]
    assert registers_of(pl.Series([-0.0]))[0] == registers_of(pl.Series([0]))[0]
