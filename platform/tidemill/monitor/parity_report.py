"""What `verify` found: for each feature how many served values are given again, and why others differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any


class Outcome(IntEnum):
    """What became of one served value when it was computed again."""

    EQUAL = 0
    WRITTEN_DURING_RUN = 1
    """A run was under way: the value before it or after it was served."""
    LATE_DATA = 2
    """An event reached serving a little later, or earlier, than its known time says."""
    TTL = 3
    """The value crossed the end of its ttl within a moment of the request."""
    TYPE = 4
    """The same value in another type."""
    DEFINITION_CHANGED = 5
    """Computed by an earlier or later definition of the view."""
    UNEXPLAINED = 6


DIFFERENCES = tuple(outcome for outcome in Outcome if outcome is not Outcome.EQUAL)


@dataclass(frozen=True, kw_only=True)
class FeatureParity:
    """One feature of one service: `counts` says how many of the `compared` values had each outcome."""

    feature: str
    view: str
    counts: Mapping[Outcome, int]

    @property
    def compared(self) -> int:
        return sum(self.counts.values())

    def count(self, outcome: Outcome) -> int:
        return self.counts.get(outcome, 0)

    def to_dict(self) -> dict[str, Any]:
        return {"feature": self.feature, "view": self.view, "compared": self.compared} | {
            outcome.name.lower(): self.count(outcome) for outcome in Outcome
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One served value that was not given again; both are shown as text, with the cut-off it was computed at."""

    feature: str
    view: str
    outcome: Outcome
    prediction_id: str
    at: datetime
    keys: str
    served: str
    recomputed: str
    cutoff: datetime | None

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {
            "outcome": self.outcome.name.lower(),
            "at": self.at.isoformat(),
            "cutoff": None if self.cutoff is None else self.cutoff.isoformat(),
        }


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Parity of what was served in an interval. `notes` are sentences for people on what stood in the way.

    `start` and `end` are those of the log's rows, None where there were none.
    """

    models: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    predictions: int
    features: tuple[FeatureParity, ...]
    examples: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    def total(self, outcome: Outcome) -> int:
        return sum(feature.count(outcome) for feature in self.features)

    @property
    def compared(self) -> int:
        return sum(feature.compared for feature in self.features)

    @property
    def equal(self) -> int:
        return self.total(Outcome.EQUAL)

    @property
    def unexplained(self) -> int:
        return self.total(Outcome.UNEXPLAINED)

    @property
    def ok(self) -> bool:
        """Nothing is left unexplained. True as well where nothing was served."""
        return self.unexplained == 0

    def feature(self, name: str) -> FeatureParity:
        return next(item for item in self.features if item.feature == name)

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "start": None if self.start is None else self.start.isoformat(),
            "end": None if self.end is None else self.end.isoformat(),
            "predictions": self.predictions,
            "compared": self.compared,
            "equal": self.equal,
            "differences": {outcome.name.lower(): self.total(outcome) for outcome in DIFFERENCES},
            "ok": self.ok,
            "features": [feature.to_dict() for feature in self.features],
            "examples": [example.to_dict() for example in self.examples],
            "notes": list(self.notes),
        }
