"""What a retrieval gives back to Feast: computed when asked for, in declared types, in the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from tidemill.definitions.types import ValueType
from tidemill.errors import InputError
from tidemill.feast.files import replace_file
from tidemill.offline.listing import resolve

_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


class PolarsRetrievalJob(RetrievalJob):
    """A retrieval that runs once, at the first `to_df`, `to_arrow`, `to_polars` or `persist`."""

    def __init__(
        self,
        compute: Callable[[], pl.DataFrame],
        *,
        root: Path,
        references: Sequence[str] = (),
        full_feature_names: bool = False,
        on_demand_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._root = root
        self._references = tuple(references)
        self._full_feature_names = full_feature_names
        self._on_demand_views = list(on_demand_views)
        self._metadata = metadata
        self._table: pa.Table | None = None

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def to_arrow(self, validation_reference: ValidationReference | None = None, timeout: int | None = None) -> pa.Table:
        """The result with on-demand features computed, in their declared types and in the order asked for."""
        return self._arranged(super().to_arrow(validation_reference=validation_reference, timeout=timeout))

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """The same for pandas. Whole numbers and booleans with missing values take pandas' nullable types."""
        table = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        nullable = {
            field.name for field in table.schema if field.type in _NULLABLE and table.column(field.name).null_count
        }
        frame = table.drop_columns(list(nullable)).to_pandas()
        for name in nullable:
            column = table.column(name)
            frame[name] = column.to_pandas(types_mapper=_NULLABLE.get)
        return frame[table.column_names]

    def to_polars(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pl.DataFrame:
        return pl.DataFrame(pl.from_arrow(self.to_arrow(validation_reference=validation_reference, timeout=timeout)))

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to a file, or into a folder, relative to the repository; all of it or nothing."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InputError(
                f"A dataset cannot be saved to {type(storage).__name__} with this offline store.",
                hint="Use SavedDatasetFileStorage.",
            )
        place = resolve(storage.file_options.uri, self._root)
        if "://" in place:
            raise InputError(f"A dataset cannot be saved to {place}.", hint="Name a file or a folder of this machine.")
        target = Path(place)
        if not allow_overwrite and target.exists():
            raise SavedDatasetLocationAlreadyExists(location=str(target))
        table = self.to_arrow(timeout=timeout)
        if target.suffix == ".parquet" and not target.is_dir():
            replace_file(target, lambda unfinished: pq.write_table(table, unfinished))
            return
        target.mkdir(parents=True, exist_ok=True)
        earlier = [file for file in target.glob("*.parquet") if file.name != "data.parquet"]
        replace_file(target / "data.parquet", lambda unfinished: pq.write_table(table, unfinished))
        for file in earlier:
            file.unlink()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        if self._table is None:
            self._table = self._compute().to_arrow(compat_level=pl.CompatLevel.oldest())
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout=timeout).to_pandas()

    def _arranged(self, table: pa.Table) -> pa.Table:
        """Feast appends on-demand features last and lets Arrow guess their types."""
        if not self._on_demand_views:
            return table
        for view in self._on_demand_views:
            for field in view.features:
                name = self._column(view.projection.name_to_use(), field.name)
                if name in table.column_names:
                    place = table.column_names.index(name)
                    column = _typed(table.column(place), field.dtype.to_value_type().value)
                    table = table.set_column(place, name, column)
        asked = [self._column(*reference.split(":", 1)) for reference in self._references]
        asked = [name for name in dict.fromkeys(asked) if name in table.column_names]
        rest = [name for name in table.column_names if name not in asked]
        return table.select([*rest, *asked])

    def _column(self, view: str, feature: str) -> str:
        return f"{view}__{feature}" if self._full_feature_names else feature


def metadata_of(references: Sequence[str], spine: pl.DataFrame, time_column: str) -> RetrievalMetadata:
    """What Feast keeps beside a saved dataset."""
    times = spine.get_column(time_column)
    low, high = (_moment(times.min()), _moment(times.max())) if times.dtype.is_temporal() else (None, None)
    return RetrievalMetadata(
        features=list(references),
        keys=[column for column in spine.columns if column != time_column],
        min_event_timestamp=low,
        max_event_timestamp=high,
    )


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _typed(column: pa.ChunkedArray, number: int) -> pa.ChunkedArray:
    wanted = ValueType(number).polars() if number in list(ValueType) else None
    if wanted is None:
        return column
    return pa.chunked_array(
        [pl.Series(pl.from_arrow(column)).cast(wanted).to_arrow(compat_level=pl.CompatLevel.oldest())]
    )
