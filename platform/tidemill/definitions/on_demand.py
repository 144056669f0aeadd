"""Evaluating on-demand views: one call of the user's function for a whole batch, offline and online alike.

A `python` view takes and returns a dict of lists; a `pandas` view takes and returns a DataFrame (only then is pandas
imported). Inputs are given under the feature's name and under `view__feature`, as Feast does.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from tidemill.definitions.catalog import Catalog, CodeReference, Feature, OnDemandView
from tidemill.definitions.code import load
from tidemill.definitions.declared_values import declared_values
from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError

_NO_TYPES: Mapping[str, ValueType] = MappingProxyType({})
_EXAMPLES: dict[ValueType, Any] = {
    ValueType.INT32: 0,
    ValueType.INT64: 0,
    ValueType.DOUBLE: 0.0,
    ValueType.FLOAT: 0.0,
    ValueType.BOOL: False,
    ValueType.UNIX_TIMESTAMP: datetime(1970, 1, 1, tzinfo=UTC),
}
_FLOATS = (ValueType.DOUBLE, ValueType.FLOAT)


def evaluate(
    view: OnDemandView, root: Path, inputs: Mapping[str, Sequence[Any]], types: Mapping[str, ValueType] = _NO_TYPES
) -> dict[str, list[Any]]:
    """The view's features for a batch, as lists of plain Python values of the declared types.

    Args:
        view: the on-demand view.
        root: the project's folder, where the function's module lies.
        inputs: equally long lists, see `gather_inputs`.
        types: what is declared of them, see `input_types`; a frame's column is of its type though all of it is null.

    Raises DefinitionError where the function fails or does not return what the view declares: every feature, one value
    for each row, of the declared type.
    """
    rows = len(next(iter(inputs.values()), ()))
    inputs = dict(inputs) | _sets(inputs, types)
    function = _function(view.function, root)
    try:
        found = _call_pandas(view, function, inputs, types) if view.mode == "pandas" else function(dict(inputs))
    except Exception as error:  # the user's code may raise anything
        raise DefinitionError(
            f"On-demand view {view.name!r} failed on a batch of {rows} rows: {type(error).__name__}: {error}.",
            hint=f"Its function is {view.function.qualname!r} in module {view.function.module!r}.",
        ) from error
    return {feature.name: _declared(view, feature, found, rows) for feature in view.features}


def input_types(catalog: Catalog, view: OnDemandView) -> dict[str, ValueType]:
    """What is declared of a view's inputs, under the names that the function uses."""
    found = {field.name: field.dtype for field in view.request}
    for item in view.inputs:
        dtype = catalog.view(item.view).feature(item.feature).dtype
        found |= {item.feature: dtype, f"{item.view}__{item.feature}": dtype}
    return found


def gather_inputs(
    view: OnDemandView, features: Mapping[tuple[str, str], Sequence[Any]], request: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """A batch's inputs under the names that the function uses.

    `features` maps (view, feature) to values, `request` a request field's name to values. Raises InputError where a
    request field is missing, and where two inputs share a name without being told apart by `view__feature`.
    """
    inputs: dict[str, list[Any]] = {}
    for source in view.inputs:
        values = list(features[source.view, source.feature])
        inputs[source.feature] = values
        inputs[f"{source.view}__{source.feature}"] = values
    for field in view.request:
        if field.name not in request:
            raise InputError(
                f"On-demand view {view.name!r} needs the request field {field.name!r}, which was not given.",
                hint=f"It needs: {', '.join(item.name for item in view.request)}.",
            )
        inputs[field.name] = list(request[field.name])
    return inputs


def prepare(view: OnDemandView, root: Path) -> None:
    """Import what evaluating the view takes, so that whoever asks first does not wait for it.

    Raises DefinitionError where the function cannot be had.
    """
    _function(view.function, root)
    if view.mode == "pandas":
        importlib.import_module("pandas")


@lru_cache(maxsize=256)
def _function(reference: CodeReference, root: Path) -> Callable[..., Any]:
    return load(reference, root)


def _sets(inputs: Mapping[str, Sequence[Any]], types: Mapping[str, ValueType]) -> dict[str, list[Any]]:
    """Sets, which history and requests hold as lists and the online store does not."""
    names = [name for name, dtype in types.items() if dtype.is_set and name in inputs]
    return {name: [None if value is None else set(value) for value in inputs[name]] for name in names}


def _call_pandas(
    view: OnDemandView,
    function: Callable[..., Any],
    inputs: Mapping[str, Sequence[Any]],
    types: Mapping[str, ValueType],
) -> dict[str, list[Any]]:
    import pandas as pd

    found = function(pd.DataFrame({name: _column(values, types.get(name)) for name, values in inputs.items()}))
    if not isinstance(found, pd.DataFrame):
        raise TypeError(f"a pandas view returns a DataFrame, not {type(found).__name__}")
    floats = {feature.name for feature in view.features if feature.dtype in _FLOATS}
    return {str(name): _without_missing(found[name], as_float=name in floats) for name in found.columns}


def _column(values: Sequence[Any], dtype: ValueType | None) -> Any:
    """Values for a frame. Where all are null they are what pandas makes of nulls among values of the type, so that a
    row by itself is computed as it is among others."""
    import pandas as pd

    if any(value is not None for value in values):
        return list(values)
    example = 0.0 if dtype is None else _EXAMPLES.get(dtype, "")
    return pd.Series(list(values), dtype=pd.Series([example, None]).dtype)


def _without_missing(column: Any, *, as_float: bool) -> list[Any]:
    """Plain values of a pandas column. A float column cannot tell a missing value from NaN, so there NaN stays, also
    where all are missing and pandas does not see that it is one."""
    if column.dtype.kind == "f":
        return column.tolist()
    if as_float and column.dtype == object:
        return [math.nan if missing else value for value, missing in zip(column, column.isna(), strict=True)]
    if column.dtype.kind == "M":
        return [None if value is None or value != value else value.to_pydatetime() for value in column]
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _declared(view: OnDemandView, feature: Feature, found: Any, rows: int) -> list[Any]:
    if not isinstance(found, Mapping):
        raise DefinitionError(
            f"On-demand view {view.name!r} returned {type(found).__name__}.", hint="Return a dict of lists."
        )
    if feature.name not in found:
        raise DefinitionError(
            f"On-demand view {view.name!r} did not return its feature {feature.name!r}; it returned: "
            f"{', '.join(map(str, found)) or 'nothing'}."
        )
    values = found[feature.name]
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise DefinitionError(
            f"On-demand feature {view.name}:{feature.name} is a {type(values).__name__}.",
            hint="Return a list with one value for each row.",
        )
    if len(values) != rows:
        raise DefinitionError(
            f"On-demand feature {view.name}:{feature.name} has {len(values)} values for {rows} rows.",
            hint="Return one value for each row, in the rows' order.",
        )
    return _cast(view, feature, list(values))


def _cast(view: OnDemandView, feature: Feature, values: list[Any]) -> list[Any]:
    try:
        return declared_values(feature.dtype, values)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DefinitionError(
            f"On-demand feature {view.name}:{feature.name} is declared {feature.dtype.name}, but its values are not: "
            f"{error}."
        ) from error
