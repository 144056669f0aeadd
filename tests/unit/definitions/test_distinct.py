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


@pytest.mark.parametrize(("count", "exact"), [(3, 0.990), (9, 0.866), (20, 0.362)], ids=["three", "nine", "twenty"])
def test_few_values_are_told_exactly_as_often_as_the_documentation_says(count: int, exact: float) -> None:
    found = many_sketches(count, of_each=4_000)
    assert (found == count).mean() == pytest.approx(exact, abs=0.03)
    assert np.abs(found - count).max() <= max(2, count // 3)


@pytest.mark.parametrize("count", [50, 1_000, 10_000])
def test_the_error_is_that_of_the_formula(count: int) -> None:
    found = many_sketches(count, of_each=200)
    assert np.sqrt(((found - count) ** 2).mean()) / count < 1.04 / np.sqrt(REGISTERS) * 1.2


def many_sketches(count: int, *, of_each: int) -> np.ndarray:
    """Estimates of so many sets of `count` distinct numbers."""
    values = pl.Series(np.random.default_rng(7).integers(-(2**62), 2**62, count * of_each))
    registers = np.zeros((of_each, REGISTERS), dtype=np.uint8)
    index, run = registers_of(values)
    np.maximum.at(registers.reshape(-1), np.repeat(np.arange(of_each), count) * REGISTERS + index, run)
    return estimate(registers)
