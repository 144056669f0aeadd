"""A training set: a spine and the features it asks for, computed when it is collected."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.errors import InvariantError
from tidemill.offline.content import digest_of_frame
from tidemill.offline.selection import Selection
from tidemill.offline.spine import Spine

if TYPE_CHECKING:
    from tidemill.settings import Settings


class TrainingSet:
    """What `OfflineStore.training_set` returns. Nothing is read before `collect`, `sink` or `digest`.

    One row for each spine row in the spine's order: the spine's columns untouched, then the features as asked.
    """

    def __init__(
        self,
        *,
        spine: Spine,
        selection: Selection,
        mode: str,
        compute: Callable[[Spine], pl.DataFrame],
        describe: Callable[[], dict[str, Any]],
        settings: Settings | None = None,
    ) -> None:
        self.mode = mode
        self._spine = spine
        self._selection = selection
        self._compute = compute
        self._describe = describe
        self._settings = settings
        self._collected: pl.DataFrame | None = None

    @property
    def feature_names(self) -> list[str]:
        return [output.name for output in self._selection.outputs]

    @property
    def spine_columns(self) -> list[str]:
        return self._spine.columns

    @property
    def spine(self) -> pl.DataFrame:
        """The spine's rows as they were given."""
        return self._spine.frame

    @property
    def time_column(self) -> str:
        """The spine's column of request times."""
        return self._spine.time_column

    def collect(self) -> pl.DataFrame:
        """The whole training set in memory; kept, so that asking again costs nothing."""
        if self._collected is None:
            features = self._compute(self._spine)
            self._collected = check_and_join(self._spine, features, self.feature_names)
        return self._collected

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content in hex: names, types and values in order. The same on any machine."""
        return digest_of_frame(self.collect())

    def manifest(self) -> dict[str, Any]:
        """What this training set was made from: digests of sources, definitions and spine, mode and versions."""
        return {
            **self._describe(),
            "mode": self.mode,
            "time_column": self.time_column,
            "spine": {"rows": len(self._spine), "columns": self.spine_columns, "digest": self.spine_digest},
            "features": self.feature_names,
            "rows": len(self._spine),
            "digest": self.digest,
        }

    @cached_property
    def spine_digest(self) -> str:
        return digest_of_frame(self._spine.frame)

    def sink(self, folder: str | Path) -> Path:
        """Write the training set as Parquet files into a new folder, without ever holding it whole. See `datasets`."""
        from tidemill.offline.sinking import sink

        return sink(self._spine, self._compute, self.feature_names, Path(folder))


def check_and_join(spine: Spine, features: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The spine with its features beside it, once the invariants of shape are seen to hold."""
    if features.height != len(spine):
        raise InvariantError(f"{features.height} rows were found for {len(spine)} rows of the spine.")
    if features.columns != names:
        raise InvariantError(f"Features came back as {features.columns}, asked for as {names}.")
    if not names:
        return spine.frame
    return pl.concat([spine.frame, features], how="horizontal") if spine.columns else features
