"""A training set: a spine and the features it asks for, computed when it is collected."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.errors import InvariantError
from tidemill.offline.content import digest_of_frame
from tidemill.offline.datasets import write_manifest
from tidemill.offline.selection import Selection
from tidemill.offline.sinking import Progress, sink
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
        compute: Callable[[Spine, int | None], pl.DataFrame],
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
    def rows(self) -> Spine:
        """The spine as it was read: its rows and the instant each asks at."""
        return self._spine

    @property
    def time_column(self) -> str:
        """The spine's column of request times."""
        return self._spine.time_column

    def collect(self) -> pl.DataFrame:
        """The whole training set in memory; kept, so that asking again costs nothing."""
        if self._collected is None:
            self._collected = self._part(self._spine)
        return self._collected

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content in hex: names, types and values in order. The same on any machine."""
        return digest_of_frame(self.collect())

    def manifest(self) -> dict[str, Any]:
        """What this training set was made from: digests of sources, definitions and spine, mode and versions."""
        return self._manifest(self.digest)

    @cached_property
    def spine_digest(self) -> str:
        return digest_of_frame(self._spine.frame)

    def sink(
        self, folder: str | Path, *, memory_limit: str | int | None = None, progress: Progress | None = None
    ) -> Path:
        """Write the training set into a new folder without ever holding it whole: Parquet files and `manifest.json`.

        Args:
            folder: must not exist; it appears once everything is written.
            memory_limit: what this process may hold in all, in bytes or as `2gb`; by default the project's setting.
            progress: called with rows written and rows in all.

        Raises ConflictError, ConfigurationError or UnavailableError, see `sinking.sink`.
        """
        sunk = sink(
            self._spine,
            self._part,
            Path(folder),
            values=len(self.feature_names) + len(self.spine_columns),
            windows=any(item.view.is_windowed for item in self._selection.views),
            memory_limit=self._limit(memory_limit),
            progress=progress,
            finish=lambda partial, sunk: write_manifest(partial, self._manifest(sunk.digest)),
        )
        self.__dict__["digest"] = sunk.digest
        return sunk.folder

    def _part(self, spine: Spine, room: int | None = None) -> pl.DataFrame:
        """Some rows; `room` is how many bytes events of windows may take meanwhile."""
        return check_and_join(spine, self._compute(spine, room), self.feature_names)

    def _manifest(self, digest: str) -> dict[str, Any]:
        return {
            **self._describe(),
            "mode": self.mode,
            "time_column": self.time_column,
            "spine": {"rows": len(self._spine), "columns": self.spine_columns, "digest": self.spine_digest},
            "features": self.feature_names,
            "rows": len(self._spine),
            "digest": digest,
        }

    def _limit(self, asked: str | int | None) -> int | None:
        from tidemill.materialize.chunks import parse_size

        if asked is None and self._settings is not None:
            asked = self._settings.memory_limit
        return parse_size(asked) if isinstance(asked, str) else asked


def check_and_join(spine: Spine, features: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The spine with its features beside it, once the invariants of shape are seen to hold."""
    if features.height != len(spine):
        raise InvariantError(f"{features.height} rows were found for {len(spine)} rows of the spine.")
    if features.columns != names:
        raise InvariantError(f"Features came back as {features.columns}, asked for as {names}.")
    if not names:
        return spine.frame
    return pl.concat([spine.frame, features], how="horizontal") if spine.columns else features
