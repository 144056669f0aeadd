"""When a served value and a recomputed one are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from tidemill.monitor.served import ServedColumn

RELATIVE = 1e-9
"""How far floats may lie apart, relative to the greater; everything else must be equal."""

PRESENT = "PRESENT"
_NULL_BECAUSE = {True: frozenset({"NULL_VALUE"}), False: frozenset({"NOT_FOUND", "OUTSIDE_MAX_AGE"})}


def agree(served: pl.Series, recomputed: pl.Series) -> np.ndarray:
    """Row by row, as a bool array: both null, both NaN, equal, or floats within `RELATIVE`."""
    if pl.Object in (served.dtype, recomputed.dtype) or _is_map(recomputed.dtype) or recomputed.dtype.is_decimal():
        return _values_agree(served, recomputed)
    if recomputed.dtype != served.dtype:
        recomputed = recomputed.cast(served.dtype, strict=False)
    if served.dtype.is_float():
        return _floats_agree(served, recomputed)
    if served.dtype.is_nested():
        return _values_agree(served, recomputed)
    return served.eq_missing(recomputed).to_numpy()


def statuses_agree(statuses: Sequence[str | None], served: pl.Series, found: np.ndarray | None) -> np.ndarray:
    """Whether each status says what the value says, as a bool array.

    A value must be PRESENT, a null must not be. Where it is known whether a row was `found` in the history (bool
    array), a found null is NULL_VALUE, any other NOT_FOUND or OUTSIDE_MAX_AGE. Without `found` the view is windowed:
    there the count of an entity that never had an event is 0, and NOT_FOUND. A status that was not logged (None) agrees
    with everything.
    """
    names = np.array([name or "" for name in statuses], dtype=object)
    null = served.is_null().to_numpy()
    right = np.where(null, names != PRESENT, names == PRESENT)
    if found is None and served.dtype.is_integer():
        right |= (names == "NOT_FOUND") & served.eq_missing(0).to_numpy()
    if found is not None:
        for there, allowed in _NULL_BECAUSE.items():
            right &= ~null | (found != there) | np.isin(names.astype(str), list(allowed))
    return right | (names == "")


def same_but_for_type(served: ServedColumn, recomputed: pl.Series) -> np.ndarray:
    """Rows whose value had another type in the log, yet says the same."""
    same = np.zeros(len(recomputed), dtype=np.bool_)
    for place in np.flatnonzero(served.mistyped):
        same[place] = _says_the_same(served.raw[place], recomputed[int(place)])
    return same


def _is_map(dtype: pl.DataType) -> bool:
    """Whether it is maps, or lists of them, which cannot be cast to records and need not be."""
    return "Map(" in repr(dtype)


def _values_agree(served: pl.Series, recomputed: pl.Series) -> np.ndarray:
    pairs = zip(served.to_list(), recomputed.to_list(), strict=True)
    return np.fromiter((_nested_agree(a, b) for a, b in pairs), dtype=np.bool_, count=len(served))


def _floats_agree(served: pl.Series, recomputed: pl.Series) -> np.ndarray:
    a = served.cast(pl.Float64).to_numpy()
    b = recomputed.cast(pl.Float64).to_numpy()
    a_null, b_null = served.is_null().to_numpy(), recomputed.is_null().to_numpy()
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.abs(a - b) <= RELATIVE * np.maximum(np.abs(a), np.abs(b)))
    close &= np.isfinite(a) == np.isfinite(b)  # an infinity is near to nothing but itself
    close |= np.isnan(a) & np.isnan(b)
    return np.where(a_null | b_null, a_null & b_null, close)


def _nested_agree(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_nested_agree(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        # A record of history has null where the map lacks the field.
        return all(_nested_agree(a.get(key), b.get(key)) for key in a.keys() | b.keys())
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=RELATIVE) or (math.isnan(a) and math.isnan(b))
    return bool(a == b) if not isinstance(b, Decimal) else _is_decimal(a, b)


def _is_decimal(served: Any, value: Decimal) -> bool:
    """The log has decimals as text, and those of history may have further zeros."""
    try:
        return Decimal(str(served)) == value
    except ArithmeticError:
        return False


def _says_the_same(raw: Any, value: Any) -> bool:
    try:
        return math.isclose(float(raw), float(value), rel_tol=RELATIVE)
    except (TypeError, ValueError):
        return str(raw) == str(value)
