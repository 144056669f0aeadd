"""A profiler for Feast's validation references: columns that miss nothing in the reference must miss nothing."""

from __future__ import annotations

from typing import Any

import pandas as pd
from feast.dqm.profilers.profiler import Profile, Profiler, ValidationReport


class Missing(ValidationReport):
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    @property
    def is_success(self) -> bool:
        return not self._columns

    @property
    def errors(self) -> list[Any]:
        return self._columns


class WholeColumns(Profile):
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    def validate(self, dataset: pd.DataFrame) -> ValidationReport:
        known = [name for name in self._columns if name in dataset]  # logs have no request time, but a time of logging
        return Missing([name for name in known if dataset[name].isna().to_numpy().any()])

    def to_proto(self) -> Any:
        raise NotImplementedError

    @classmethod
    def from_proto(cls, proto: Any) -> Profile:
        raise NotImplementedError


class NothingMissingProfiler(Profiler):
    def analyze_dataset(self, dataset: pd.DataFrame) -> Profile:
        return WholeColumns([name for name in dataset if not dataset[name].isna().to_numpy().any()])

    def to_proto(self) -> Any:
        raise NotImplementedError

    @classmethod
    def from_proto(cls, proto: Any) -> Profiler:
        raise NotImplementedError
