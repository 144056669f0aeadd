"""Numbers leave as the same JSON, whether they were lists or arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest

from tidemill.definitions.types import ValueType
from tidemill.online.result import OnlineResult, RowStates
from tidemill_serving.features import Vectors
from tidemill_serving.vectors import VectorWriter

TYPES = {"double": ValueType.DOUBLE, "whole": ValueType.INT64, "text": ValueType.STRING}
WHOLES = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]


def vectors(doubles: list[float], *, arrays: bool) -> Vectors:
    columns: dict[str, Any] = {"double": doubles, "whole": WHOLES, "text": ["a"] * len(WHOLES)}
    if arrays:
        columns |= {"double": np.array(doubles), "whole": np.array(WHOLES)}
    result = OnlineResult(
        names=tuple(TYPES), values=columns, dtypes=TYPES, at=0, states=[RowStates([1] * len(WHOLES))], views=(0, 0, 0)
    )
    return Vectors.of(result, VectorWriter.of(TYPES), {"service": "all"})


@pytest.mark.parametrize(
    "doubles",
    [
        [0.1, -0.0, 5e-324, 1e16, float(np.float32(0.1))],
        [math.nan, 1.5, 2.0, 1e300, 1e308],
        [math.inf, -math.inf, 0.5, 1.0, math.nan],
        [1.7e308, 1.7e308, 1.7e308, 1.0, 2.0],
    ],
)
def test_arrays_are_written_as_lists_are(doubles: list[float]):
    lists, arrays = (vectors(doubles, arrays=arrays) for arrays in (False, True))
    assert arrays.whole(5, event_times=True) == lists.whole(5, event_times=True)
    assert arrays.part(slice(1, 4), event_times=False) == lists.part(slice(1, 4), event_times=False)
    assert orjson.loads(arrays.whole(5, event_times=False))["features"]["whole"] == WHOLES
