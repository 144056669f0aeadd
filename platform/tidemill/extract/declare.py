"""How a project says where its data comes from: `extract.py` with one decorated function for each source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path
from typing import Any

from tidemill.definitions.code import import_file
from tidemill.errors import DefinitionError
from tidemill.extract.contract import Contract

MODULE = "extract.py"
_MARK = "__tidemill_extraction__"

ExtractFunction = Callable[[datetime, datetime], Any]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A function (start, end) -> frame or frames that gives the rows of `source` which became known in `[start, end)`.

    `once` says that the source does not change with time: its rows land a single time, whatever the interval.
    `contract` is what every interval must look like; None takes any frame that has the source's times.
    """

    source: str
    function: ExtractFunction
    once: bool = False
    contract: Contract | None = None


def extracts(
    *, source: str, once: bool = False, contract: Contract | None = None
) -> Callable[[ExtractFunction], ExtractFunction]:
    """Declare that a function extracts a source.

    The function takes `start` and `end` (UTC) and returns a frame (Polars, pandas or Arrow) of the rows that became
    known in `[start, end)`, or yields such frames, page by page. Called again with the same interval it must give the
    same rows. They are checked against the `contract` before they land, all of them or none: see `Contract`.
    """

    def mark(function: ExtractFunction) -> ExtractFunction:
        if iscoroutinefunction(function) or isasyncgenfunction(function):
            raise DefinitionError(
                f"The extraction of {source!r} is asynchronous.", hint="Write `def`, and call `asyncio.run` in it."
            )
        setattr(function, _MARK, Extraction(source=source, function=function, once=once, contract=contract))
        return function

    return mark


def extractions_of(root: Path) -> Mapping[str, Extraction]:
    """The extractions declared in a project's `extract.py`, by source.

    Raises DefinitionError where the file is missing, cannot be imported, or names a source twice.
    """
    file = root / MODULE
    if not file.is_file():
        raise DefinitionError(
            f"There is no {MODULE} in {root}.",
            hint="Write one with a function decorated with `@tidemill.extract.extracts(source=...)` for each source.",
        )
    found: dict[str, Extraction] = {}
    for function in vars(_imported(file, root)).values():
        extraction = getattr(function, _MARK, None)
        if isinstance(extraction, Extraction):
            _add(found, extraction, file)
    return found


def _imported(file: Path, root: Path) -> Any:
    try:
        return import_file(file, root)
    except Exception as error:
        raise DefinitionError(
            f"{file} cannot be imported: {type(error).__name__}: {str(error).rstrip('.')}.",
            hint="Mend it; it is looked at again.",
        ) from error


def extracted_sources(root: Path) -> frozenset[str]:
    """The sources that a project extracts itself; none where it has no `extract.py`."""
    return frozenset(extractions_of(root)) if (root / MODULE).is_file() else frozenset()


def _add(found: dict[str, Extraction], extraction: Extraction, file: Path) -> None:
    earlier = found.setdefault(extraction.source, extraction)
    if earlier is not extraction:
        raise DefinitionError(
            f"Two functions in {file} extract {extraction.source!r}: {_name(earlier)} and {_name(extraction)}.",
            hint="Keep one of them.",
        )


def _name(extraction: Extraction) -> str:
    return getattr(extraction.function, "__name__", repr(extraction.function))
