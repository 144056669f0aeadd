"""Some values of an array by their places."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tidemill.offline.side_by_side import shares_of, side_by_side

_T = TypeVar("_T", bound=np.generic)


def taken(values: npt.NDArray[_T], places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[_T]:
    """The values at places that are known to be there: `values[places]`, without the checks that cost a third of it."""
    return values.take(places, mode="clip")


def taken_side_by_side(values: npt.NDArray[_T], places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[_T]:
    """`taken` for very many places, some on each core."""
    found = np.empty(len(places), values.dtype)
    spans = shares_of(len(places))
    takes = [partial(values.take, places[span], out=found[span], mode="clip") for span in spans]
    side_by_side(takes, size=len(places))
    return found
