"""The catalog: a project's definitions as frozen, content-hashed plain objects.

Feast is the language in which users write; `tidemill apply` compiles what they wrote into these nouns once, and every
other part (training sets, materialization, serving, monitoring) works from them and never imports Feast.

All durations are `timedelta`; all names are unique within their kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from tidemill.definitions.choices import AggregationFunction, CatchUp, StalePolicy
from tidemill.definitions.types import ValueType
from tidemill.errors import NotDefinedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T", bound="_Named")


class _Named:
    name: str


@dataclass(frozen=True, kw_only=True)
class Field(_Named):
    """A named, typed value: a feature, or an input given with the request."""

    name: str
    dtype: ValueType
    description: str = ""


Feature = Field
RequestField = Field


@dataclass(frozen=True, kw_only=True)
class Entity(_Named):
    """Something that features describe, found by one join key."""

    name: str
    join_key: str
    dtype: ValueType
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Source(_Named):
    """Where a view's history lies: a Parquet file or folder (hive partitions allowed), or a Delta table.

    `path` is relative to the project's folder unless absolute or a URL. `known_field` names the column that says when a
    row could have been known; None means at its event time. `field_mapping` maps a column's name in the file to its
    name in the definitions.
    """

    name: str
    path: str
    timestamp_field: str
    known_field: str | None = None
    file_format: str = "parquet"
    field_mapping: tuple[tuple[str, str], ...] = ()
    schedule: Schedule | None = None
    description: str = ""

    @property
    def event_column(self) -> str:
        """The event time's column after field mapping."""
        return dict(self.field_mapping).get(self.timestamp_field, self.timestamp_field)

    @property
    def known_column(self) -> str:
        """The known time's column after field mapping; the event time's where the source has none."""
        known = self.known_field or self.timestamp_field
        return dict(self.field_mapping).get(known, known)


@dataclass(frozen=True, kw_only=True)
class Stream(_Named):
    """Where a view's present arrives: a push source, or a topic. `source` is the batch source behind it.

    `address` is that of the topic (`kafka://host:port/topic`) where the definitions name one.
    """

    name: str
    kind: str
    source: str
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When work is done: a cron expression or a fixed interval, in a time zone.

    `lag` is how long after its tick a run has usually finished; before the ledger begins, the newest tick with
    `tick + lag <= t` stands for what the online store held at `t`.

    A run starts up to `jitter` after its tick, is given up after `timeout` (None: never), and is tried `attempts` times
    before it is left for people to look at.
    """

    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"
    lag: timedelta = timedelta(0)
    catch_up: CatchUp = CatchUp.LATEST
    jitter: timedelta = timedelta(0)
    attempts: int = 5
    timeout: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How old a served value may be before the answer says so."""

    max_age: timedelta
    policy: StalePolicy = StalePolicy.SERVE


@dataclass(frozen=True, kw_only=True)
class Aggregation(_Named):
    """One windowed feature: `function` of `column` over the last `window`, the trailing edge moving in `hop`s."""

    name: str
    function: AggregationFunction
    column: str
    window: timedelta
    hop: timedelta


@dataclass(frozen=True, kw_only=True)
class View(_Named):
    """A feature view over one source: plain (a row's own columns) or windowed (aggregations over its events).

    `join_keys` are the keys' column names in the view's source, after field mapping, in the order of `entities`.
    A ttl of zero means that a value never grows too old. A windowed view's features are its aggregations' outputs.
    """

    name: str
    entities: tuple[str, ...]
    join_keys: tuple[str, ...]
    features: tuple[Feature, ...]
    source: str
    stream: str | None = None
    ttl: timedelta = timedelta(0)
    online: bool = True
    schedule: Schedule | None = None
    freshness: Freshness | None = None
    aggregations: tuple[Aggregation, ...] = ()
    event_id: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def is_windowed(self) -> bool:
        return bool(self.aggregations)

    @property
    def is_pushed(self) -> bool:
        """Kept current by events as they arrive, so that its cut-off at `t` is `t` itself."""
        return self.stream is not None and self.schedule is None

    def feature(self, name: str) -> Feature:
        return _pick("feature", self.features, name)


@dataclass(frozen=True, kw_only=True)
class CodeReference:
    """A function of the user's, named and not stored: imported from the project's folder when it is needed.

    `digest` is the SHA-256, at apply, of its text and that of all it uses of the project's files (`function_text`).
    """

    module: str
    qualname: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class OnDemandInput:
    """A column that an on-demand view reads: a view's feature."""

    view: str
    feature: str


@dataclass(frozen=True, kw_only=True)
class OnDemandView(_Named):
    """Features computed at the moment of asking, from request data and other features.

    `mode` is `python` (a dict of lists in, a dict of lists out), or `pandas` (a frame in, a frame out).
    """

    name: str
    features: tuple[Feature, ...]
    function: CodeReference
    mode: str
    inputs: tuple[OnDemandInput, ...] = ()
    request: tuple[RequestField, ...] = ()
    description: str = ""

    def feature(self, name: str) -> Feature:
        return _pick("feature", self.features, name)


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What a service takes from one view: some features, under another name or other join keys where asked.

    `join_key_map` maps the view's own join key to the spine's column.
    """

    view: str
    features: tuple[str, ...]
    alias: str | None = None
    join_key_map: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.alias or self.view


@dataclass(frozen=True, kw_only=True)
class Service(_Named):
    """A feature service: the vector that one or more models read."""

    name: str
    projections: tuple[Projection, ...]
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class SpineDefinition:
    """Who is asked about, and when: a source with one row for each prediction ever due.

    `time_column` holds the request time; `id_column` names each row, and joins labels to it; `keys` maps join keys to
    the source's columns; `request` are the columns handed over with the request.
    """

    source: str
    time_column: str
    id_column: str
    keys: tuple[tuple[str, str], ...]
    request: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelDefinition:
    """What is predicted, and where it becomes known later. Joined to the spine by `id_column`."""

    source: str
    column: str
    id_column: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """By time: the last `test` of the spine, before it `validation`, and everything earlier for fitting."""

    test: timedelta
    validation: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on a metric that a challenger must meet; `kind`: `at_least`, `at_most`, `not_worse_than_champion`."""

    kind: str
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A reason to fit again: `kind` is `schedule`, `drift`, `performance` or `new_data`; `settings` are its numbers."""

    kind: str
    settings: tuple[tuple[str, str | float], ...] = ()

    def setting(self, name: str) -> str | float:
        return dict(self.settings)[name]


@dataclass(frozen=True, kw_only=True)
class Model(_Named):
    """A model as declared: what it reads, whom it is asked about, what it predicts and when it may serve."""

    name: str
    service: str
    spine: SpineDefinition
    label: LabelDefinition
    estimator: CodeReference
    split: Split
    metrics: tuple[str, ...]
    gates: tuple[Gate, ...] = ()
    retrain: tuple[Trigger, ...] = ()
    seed: int = 0
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything a project defines. Equal content has an equal `digest`, wherever and whenever it was compiled."""

    project: str
    entities: tuple[Entity, ...] = ()
    sources: tuple[Source, ...] = ()
    streams: tuple[Stream, ...] = ()
    views: tuple[View, ...] = ()
    on_demand_views: tuple[OnDemandView, ...] = ()
    services: tuple[Service, ...] = ()
    models: tuple[Model, ...] = ()
    entity_key_version: int = 3

    def entity(self, name: str) -> Entity:
        return _find("entity", self._by_kind["entities"], name)

    def source(self, name: str) -> Source:
        return _find("source", self._by_kind["sources"], name)

    def stream(self, name: str) -> Stream:
        return _find("stream source", self._by_kind["streams"], name)

    def view(self, name: str) -> View:
        return _find("feature view", self._by_kind["views"], name)

    def on_demand_view(self, name: str) -> OnDemandView:
        return _find("on-demand feature view", self._by_kind["on_demand_views"], name)

    def service(self, name: str) -> Service:
        return _find("feature service", self._by_kind["services"], name)

    def model(self, name: str) -> Model:
        return _find("model", self._by_kind["models"], name)

    def is_on_demand(self, name: str) -> bool:
        return name in self._by_kind["on_demand_views"]

    def key_types(self, view: View) -> tuple[ValueType, ...]:
        """The types of a view's join keys, in the order of `view.join_keys`."""
        return tuple(self.entity(name).dtype for name in view.entities)

    def views_of_stream(self, stream: str) -> tuple[View, ...]:
        return tuple(view for view in self.views if view.stream == stream)

    @cached_property
    def digest(self) -> str:
        from tidemill.definitions.serialization import digest_of

        return digest_of(self)

    @cached_property
    def _by_kind(self) -> Mapping[str, Mapping[str, _Named]]:
        kinds = ("entities", "sources", "streams", "views", "on_demand_views", "services", "models")
        return MappingProxyType({kind: {item.name: item for item in getattr(self, kind)} for kind in kinds})


def _find(kind: str, items: Mapping[str, Any], name: str) -> Any:
    try:
        return items[name]
    except KeyError:
        raise NotDefinedError(kind, name, items) from None


def _pick(kind: str, items: Iterable[T], name: str) -> T:
    items = tuple(items)
    for item in items:
        if item.name == name:
            return item
    raise NotDefinedError(kind, name, [item.name for item in items])
