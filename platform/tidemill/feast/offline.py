"""`PolarsOfflineStore`: Feast's offline store over Parquet and Delta, on Tidemill's point-in-time engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from tidemill.errors import InputError, SourceError
from tidemill.feast import monitoring
from tidemill.feast.feature_order import keep_features_in_order
from tidemill.feast.historical import keys_and_times, range_asked, training_set_of
from tidemill.feast.pulls import Pulled, columns_of, newest_of_each_key, rows_between
from tidemill.feast.registry_defaults import change_registry_defaults
from tidemill.feast.retrieval import PolarsRetrievalJob, metadata_of
from tidemill.feast.writes import append_log, append_to_source

change_registry_defaults()
keep_features_in_order()


class PolarsOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` in `feature_store.yaml`."""

    type: Literal["tidemill.feast.offline.PolarsOfflineStore"] = "tidemill.feast.offline.PolarsOfflineStore"


class PolarsOfflineStore(OfflineStore):
    """History on files, exact for every invariant of the semantics; a drop-in for Feast's file and duckdb stores.

    Retrieval is event mode. Known times decide only ties, unless `filter_by_created_timestamp=True` is asked for.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Features for each row of `entity_df`: a pandas, Polars or Arrow frame, SQL over the project's sources, or the
        path of a Parquet file. Without one, for each distinct key and event time from `start_date` to `end_date`."""
        root = root_of(config)
        if entity_df is None:
            start, end = range_asked(feature_views, start_date, end_date)
            entity_df = keys_and_times(root=root, project=project, views=feature_views, start=start, end=end)
        training_set = training_set_of(
            root=root,
            project=project,
            views=feature_views,
            references=feature_refs,
            spine=entity_df,
            registry=registry,
            full_feature_names=full_feature_names,
            filter_known=filter_by_created_timestamp,
        )
        on_demand_views = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        _refuse_missing_requests(on_demand_views, training_set.spine.columns)
        return PolarsRetrievalJob(
            training_set.collect,
            root=root,
            references=feature_refs,
            full_feature_names=full_feature_names,
            on_demand_views=on_demand_views,
            metadata=metadata_of(feature_refs, training_set.spine, training_set.time_column),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        root = root_of(config)
        wanted = Pulled(
            keys=join_key_columns, features=feature_name_columns, time=timestamp_field, known=created_timestamp_column
        )

        def compute() -> pl.DataFrame:
            rows = rows_between(root, _file_source(data_source), wanted, start_date, end_date)
            return newest_of_each_key(rows, wanted).collect()

        return PolarsRetrievalJob(compute, root=root)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        root = root_of(config)
        wanted = Pulled(
            keys=join_key_columns, features=feature_name_columns, time=timestamp_field, known=created_timestamp_column
        )

        def compute() -> pl.DataFrame:
            return rows_between(root, _file_source(data_source), wanted, start_date, end_date).collect()

        return PolarsRetrievalJob(compute, root=root)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's source as a new file; nothing that is there is written again."""
        append_to_source(root_of(config), feature_view, table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004 - Feast's signature; the destination says all
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004
    ) -> None:
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise InputError(
                f"Features cannot be logged to a {type(destination).__name__} with this offline store.",
                hint="Use a FileLoggingDestination.",
            )
        append_log(root_of(config), destination, data)

    @staticmethod
    def compute_monitoring_metrics(
        config: RepoConfig,
        data_source: DataSource,
        feature_columns: list[tuple[str, str]],
        timestamp_field: str,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        histogram_bins: int = 20,
        top_n: int = 10,
    ) -> list[dict[str, Any]]:
        """Data quality metrics of a source's features, as `feast monitor run` asks for them."""
        return monitoring.measure(
            root_of(config),
            _file_source(data_source),
            feature_columns,
            time_column=timestamp_field,
            start=start_date,
            end=end_date,
            bins=histogram_bins,
            most_values=top_n,
        )

    @staticmethod
    def get_monitoring_max_timestamp(
        config: RepoConfig, data_source: DataSource, timestamp_field: str
    ) -> datetime | None:
        return monitoring.newest_time(root_of(config), _file_source(data_source), timestamp_field)

    @staticmethod
    def ensure_monitoring_tables(config: RepoConfig) -> None:
        monitoring.prepare(root_of(config))

    @staticmethod
    def save_monitoring_metrics(config: RepoConfig, metric_type: str, metrics: list[dict[str, Any]]) -> None:
        monitoring.keep(root_of(config), metric_type, metrics)

    @staticmethod
    def query_monitoring_metrics(
        config: RepoConfig,
        project: str,
        metric_type: str,
        filters: dict[str, Any] | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
    ) -> list[dict[str, Any]]:
        return monitoring.kept(root_of(config), project, metric_type, filters, start_date, end_date)

    @staticmethod
    def clear_monitoring_baseline(
        config: RepoConfig,
        project: str,
        feature_view_name: str | None = None,
        feature_name: str | None = None,
        data_source_type: str | None = None,
    ) -> None:
        monitoring.end_baseline(
            root_of(config),
            project,
            feature_view_name=feature_view_name,
            feature_name=feature_name,
            data_source_type=data_source_type,
        )

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        return columns_of(root_of(config), _file_source(data_source))


def root_of(config: RepoConfig) -> Path:
    """The repository's folder, against which every relative path is read."""
    return Path(config.repo_path or Path.cwd()).resolve()


def _refuse_missing_requests(views: Iterable[OnDemandFeatureView], columns: Iterable[str]) -> None:
    """Feast asks this of pandas spines alone; a range of time, for one, never has request data."""
    present = set(columns)
    for view in views:
        for name in view.get_request_data_schema():
            if name not in present:
                raise RequestDataNotFoundInEntityDfException(feature_name=name, feature_view_name=view.name)


def _file_source(source: DataSource) -> FileSource:
    if not isinstance(source, FileSource):
        raise SourceError(f"Source {source.name!r} is a {type(source).__name__}; this offline store reads files.")
    return source
