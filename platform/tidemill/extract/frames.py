"""What an extraction gave, as one frame: returned whole or yielded page by page, by Polars, pandas or Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from tidemill.errors import InputError, SourceError
from tidemill.extract.contract import Contract
from tidemill.extract.validation import REASON, conform
from tidemill.offline.append import as_frame

Shape = Mapping[str, pl.DataType]


def gathered(found: Any, contract: Contract | None, source: str, *, shape: Shape | None = None) -> pl.DataFrame:
    """Everything that was returned or yielded, in its order, in the contract's types.

    Where nothing came, and for columns without any value, the types are the contract's or those of `shape`, which is
    what landed before. Raises SourceError where they are not known, and for anything that is not rows.
    """
    parts = [part for part in _parts(found, source) if part.width]
    for part in parts:
        _check_names(part, source)
    if contract is not None:
        parts = [conform(part, contract, source) for part in parts]
    if not parts:
        return _nothing(contract, source, shape)
    return _in_types_of(_stacked(parts, source), shape or {})


def _parts(found: Any, source: str) -> list[pl.DataFrame]:
    if found is None:
        raise SourceError(
            f"The extraction of {source!r} returned None.",
            hint="Return a frame or yield some, without rows where nothing became known.",
        )
    if _is_frame(found) or not isinstance(found, Iterator | list | tuple):
        return [_frame(found, source)]
    items = [_frame(item, source) if _is_frame(item) else item for item in found]
    rows = [item for item in items if not isinstance(item, pl.DataFrame)]
    if rows and len(rows) < len(items):
        raise SourceError(
            f"What was extracted for {source!r} is no table: a frame, and beside it a {type(rows[0]).__name__}.",
            hint="Yield frames only, or rows only.",
        )
    return [_frame(rows, source)] if rows else items


def _is_frame(found: Any) -> bool:
    return isinstance(found, pl.LazyFrame) or (
        hasattr(found, "__arrow_c_stream__") and not isinstance(found, pl.Series)
    )


def _frame(found: Any, source: str) -> pl.DataFrame:
    try:
        return as_frame(found)
    except InputError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"What was extracted for {source!r} is no table. {error.message}",
            hint="Return a Polars, pandas or Arrow frame or a list of dicts, or yield frames.",
        ) from error


def _check_names(frame: pl.DataFrame, source: str) -> None:
    if REASON in frame.columns:
        raise SourceError(
            f"The extraction of {source!r} has a column {REASON!r}, where quarantine keeps what is wrong with a row.",
            hint="Give it another name in the extraction.",
        )
    objects = [name for name, dtype in frame.schema.items() if dtype == pl.Object]
    if objects:
        raise SourceError(
            f"The columns {', '.join(objects)} extracted for {source!r} hold Python objects, which Parquet cannot.",
            hint="Convert them in the extraction, to text for instance.",
        )


def _nothing(contract: Contract | None, source: str, shape: Shape | None) -> pl.DataFrame:
    if contract is None and shape is None:
        raise SourceError(
            f"The extraction of {source!r} returned a frame without columns.",
            hint="Give the source a contract: it says which columns an interval without rows has.",
        )
    return pl.DataFrame(schema={**(shape or {}), **(contract.schema if contract else {})})


def _stacked(parts: list[pl.DataFrame], source: str) -> pl.DataFrame:
    """One frame of several. What holds no value does not say of which type it is."""
    parts = [part for part in parts if part.height] or parts[:1]
    first, known = parts[0], dict[str, pl.DataType]()
    for part in parts:
        if set(part.columns) != set(first.columns):
            odd = ", ".join(sorted(set(part.columns) ^ set(first.columns)))
            raise SourceError(f"Not every frame extracted for {source!r} has the columns {odd}.")
        known |= {name: dtype for name, dtype in part.schema.items() if dtype != pl.Null}
    alike = [_in_types_of(part, known).select(first.columns) for part in parts]
    for part in alike:
        for name, dtype in part.schema.items():
            if dtype != known.get(name, dtype):
                raise SourceError(
                    f"The column {name!r} extracted for {source!r} is {dtype} in one frame and {known[name]} in "
                    "another.",
                    hint="Name it in the source's contract, or give every frame the same types.",
                )
    return pl.concat(alike)


def _in_types_of(frame: pl.DataFrame, known: Shape) -> pl.DataFrame:
    empty = [name for name, dtype in frame.schema.items() if dtype == pl.Null and name in known]
    return frame.with_columns(pl.lit(None, dtype=known[name]).alias(name) for name in empty) if empty else frame
