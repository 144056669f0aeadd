"""The API's answers as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row's answer. `features` is filled in when it was asked for with `explain`."""

    id: str | None
    prediction_id: str
    prediction: float
    statuses: Mapping[str, str]
    stale: tuple[str, ...] = ()
    features: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Predictions(Sequence[Prediction]):
    """The answers in the order of the rows, all from one version of the model and at one instant (UTC)."""

    model: str
    version: int
    at: datetime
    rows: tuple[Prediction, ...]

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Predictions:
        rows = tuple(
            Prediction(
                id=row["id"],
                prediction_id=row["prediction_id"],
                prediction=row["prediction"],
                statuses=row["statuses"],
                stale=tuple(row["stale"]),
                features=row.get("features"),
            )
            for row in plain["predictions"]
        )
        return cls(
            model=plain["model"], version=plain["version"], at=datetime.fromisoformat(plain["at"]), rows=rows
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)


@dataclass(frozen=True, kw_only=True)
class FeatureVectors:
    """Features by name, each a list in the order of the rows; statuses alike. `at` is the instant of the read (UTC)."""

    service: str | None
    catalog_version: int
    at: datetime
    features: Mapping[str, list[Any]]
    statuses: Mapping[str, list[str]]
    stale: Mapping[str, list[bool]]
    event_times: Mapping[str, list[str | None]] | None = None

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> FeatureVectors:
        return cls(
            service=plain["service"],
            catalog_version=plain["catalog_version"],
            at=datetime.fromisoformat(plain["at"]),
            features=plain["features"],
            statuses=plain["statuses"],
            stale=plain["stale"],
            event_times=plain.get("event_times"),
        )

    def row(self, index: int) -> dict[str, Any]:
        """One row's features."""
        return {name: column[index] for name, column in self.features.items()}


@dataclass(frozen=True, kw_only=True)
class PushReceipt:
    """What became of pushed rows. `rejected` names rows by their position, with the reason."""

    accepted: int
    duplicates: int
    rejected: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> PushReceipt:
        return cls(
            accepted=plain["accepted"],
            duplicates=plain["duplicates"],
            rejected=tuple(plain["rejected"]),
            ignored=tuple(plain["ignored"]),
        )


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model as it is served; `version` is None before the first promotion."""

    name: str
    service: str
    version: int | None
    description: str
    row: tuple[Mapping[str, str], ...]

    @classmethod
    def read_all(cls, plain: Mapping[str, Any]) -> list[ModelInfo]:
        return [
            cls(
                name=model["name"],
                service=model["service"],
                version=model["version"],
                description=model["description"],
                row=tuple(model["row"]),
            )
            for model in plain["models"]
        ]
