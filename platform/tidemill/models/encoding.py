"""From a feature vector to the numbers an estimator reads: the same function for training and for serving.

The encoding is declared in the artifact's manifest and not fitted into the estimator, so that one served row costs
microseconds. One column of float64 for each feature, in the service's order:

- numbers as they are; here and only here a missing value becomes NaN, and an integer beyond 2**53 loses its last bits;
- booleans as 0 and 1;
- strings as the position of the category in `categories`; a string that was not in the training data is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from tidemill.definitions.types import ValueType
from tidemill.errors import DefinitionError, InputError

MAX_CATEGORIES = 254  # what scikit-learn's histogram trees can tell apart, with one bin left for missing values


@dataclass(frozen=True, kw_only=True)
class ModelFeature:
    """One input of a model: its name in the vector, its declared type, and for a string the categories it knows."""

    name: str
    dtype: ValueType
    categories: tuple[str, ...] = ()

    @property
    def is_categorical(self) -> bool:
        return self.dtype is ValueType.STRING

    @cached_property
    def codes(self) -> dict[str, float]:
        return {category: float(code) for code, category in enumerate(self.categories)}

    def numbers(self, values: Sequence[object]) -> Sequence[object]:
        """The values as something NumPy reads as float64, missing ones as None."""
        return [self.codes.get(value) for value in values] if self.is_categorical else values  # type: ignore[arg-type]

    def numbers_of(self, column: pl.Series) -> np.ndarray:
        """The column of a frame as float64, missing values as NaN."""
        if self.is_categorical:
            codes = list(self.codes.values())
            column = column.cast(pl.String).replace_strict(
                list(self.categories), codes, default=None, return_dtype=pl.Float64
            )
        return column.cast(pl.Float64).to_numpy()


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The inputs of a model, in the order of its matrix's columns."""

    features: tuple[ModelFeature, ...]

    def matrix(self, columns: pl.DataFrame | Mapping[str, Sequence[object]]) -> np.ndarray:
        """float64 of shape (rows, features).

        `columns` is a frame, or for each feature a list of plain values with None where there is none; further
        columns are ignored. Raises InputError naming a feature that is missing or whose values are not of its type.
        """
        if isinstance(columns, pl.DataFrame):
            return self._from_frame(columns)
        try:
            parts = [columns[feature.name] for feature in self.features]
            for place in self._categorical:
                parts[place] = self.features[place].numbers(parts[place])
            return np.array(parts, dtype=np.float64).T
        except KeyError:
            raise _missing(self.features, columns) from None
        except (TypeError, ValueError):
            raise self._mistyped(columns) from None

    @cached_property
    def _categorical(self) -> tuple[int, ...]:
        return tuple(place for place, feature in enumerate(self.features) if feature.is_categorical)

    def _from_frame(self, frame: pl.DataFrame) -> np.ndarray:
        matrix = np.empty((frame.height, len(self.features)), dtype=np.float64, order="F")
        for place, feature in enumerate(self.features):
            if feature.name not in frame.columns:
                raise _missing(self.features, frame.columns)
            try:
                matrix[:, place] = feature.numbers_of(frame[feature.name])
            except pl.exceptions.PolarsError as error:
                raise InputError(
                    f"Feature {feature.name!r} is declared {feature.dtype.name}, and the column holds "
                    f"{frame[feature.name].dtype}: {error}."
                ) from None
        return matrix

    def _mistyped(self, columns: Mapping[str, Sequence[object]]) -> InputError:
        for feature in self.features:
            for value in columns[feature.name]:
                try:
                    np.array(feature.numbers([value]), dtype=np.float64)
                except (TypeError, ValueError):
                    return InputError(f"Feature {feature.name!r} is declared {feature.dtype.name}, not {value!r}.")
        return InputError("The features of a request must all have one value for each row.")


def _missing(features: Iterable[ModelFeature], found: Iterable[str]) -> InputError:
    found = set(found)
    names = [feature.name for feature in features if feature.name not in found]
    return InputError(f"The model reads features that were not given: {', '.join(names)}.")


def check_encodable(name: str, dtype: ValueType) -> None:
    """Raise DefinitionError for a feature whose type no estimator can read as one number."""
    if dtype.is_numeric or dtype in (ValueType.BOOL, ValueType.STRING):
        return
    raise DefinitionError(
        f"Feature {name!r} is of type {dtype.name}, which a model cannot read as a number.",
        hint="Compute a number from it in an on-demand feature view (an age from a timestamp, say), and use that.",
    )
