"""Some values of an array by their places."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_T = TypeVar("_T", bound=np.generic)


def taken(values: npt.NDArray[_T], places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[_T]:
    """The values at places that are known to be there: `values[places]`, without the checks that cost a third of it."""
    return values.take(places, mode="clip")
