"""What differs between two catalogs, and what that means: data to load again, models whose vector changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tidemill.definitions.catalog import Catalog, Service, View
from tidemill.definitions.stored import stored_by

_KINDS = (
    ("entities", "entity"),
    ("sources", "source"),
    ("streams", "stream source"),
    ("views", "feature view"),
    ("on_demand_views", "on-demand feature view"),
    ("services", "feature service"),
    ("models", "model"),
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One definition that is `added`, `changed` or `removed`; `fields` are the ones that differ.

    `consequence` says in words what has to happen; it is empty where nothing has.
    """

    what: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()
    consequence: str = ""

    @property
    def line(self) -> str:
        details = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.what} {self.kind} {self.name}{details}" + (f": {self.consequence}" if self.consequence else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an apply would change."""

    changes: tuple[Change, ...]
    digest: str

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(change.line for change in self.changes) or ("Nothing would change.",)

    @property
    def rebuild(self) -> tuple[str, ...]:
        """The views whose online data has to be loaded anew."""
        return tuple(
            change.name for change in self.changes if change.kind == "feature view" and "load" in change.consequence
        )

    @property
    def breaks(self) -> tuple[str, ...]:
        """The models whose trained versions no longer fit their vector."""
        return tuple(change.name for change in self.changes if change.kind == "model" and "train" in change.consequence)


def plan_between(before: Catalog | None, after: Catalog) -> Plan:
    """The changes that lead from one catalog to another; None stands for an empty one."""
    old = before or Catalog(project=after.project)
    changes = [change for kind in _KINDS for change in _changes_of(old, after, *kind)]
    return Plan(changes=tuple(changes), digest=after.digest)


def _changes_of(before: Catalog, after: Catalog, attribute: str, kind: str) -> Iterator[Change]:
    old: Mapping[str, Any] = {item.name: item for item in getattr(before, attribute)}
    new: Mapping[str, Any] = {item.name: item for item in getattr(after, attribute)}
    for name in sorted(old.keys() - new.keys()):
        yield Change(what="remove", kind=kind, name=name, consequence=_when_removed(kind))
    for name in sorted(new.keys() - old.keys()):
        yield Change(what="add", kind=kind, name=name, consequence=_when_added(kind, new[name]))
    for name in sorted(old.keys() & new.keys()):
        yield from _change(before, after, kind, old[name], new[name])


def _change(before: Catalog, after: Catalog, kind: str, old: Any, new: Any) -> Iterator[Change]:
    differ = tuple(f.name for f in fields(new) if getattr(old, f.name) != getattr(new, f.name))
    consequence = ""
    if kind == "feature view":
        consequence = _when_view_changed(before, after, old, new)
    elif kind == "model":
        consequence = _when_vector_changed(before.service(old.service), before, after.service(new.service), after)
    if differ or consequence:
        yield Change(what="change", kind=kind, name=new.name, fields=differ, consequence=consequence)


def _when_added(kind: str, item: Any) -> str:
    return "load its online data with `tidemill materialize`" if kind == "feature view" and item.online else ""


def _when_removed(kind: str) -> str:
    return "its online data is deleted" if kind == "feature view" else ""


def _when_view_changed(before: Catalog, after: Catalog, old: View, new: View) -> str:
    if not new.online:
        return "its online data is no longer kept up to date" if old.online else ""
    if not old.online or stored_by(before, old) != stored_by(after, new):
        return "load its online data again with `tidemill materialize`"
    return ""


def _when_vector_changed(old: Service, before: Catalog, new: Service, after: Catalog) -> str:
    was, becomes = _vector(old, before), _vector(new, after)
    if was == becomes:
        return ""
    gone, come = [name for name in was if name not in becomes], [name for name in becomes if name not in was]
    parts = [f"loses {', '.join(gone)}"] if gone else []
    parts += [f"gains {', '.join(come)}"] if come else []
    parts += ["changes how features are computed or ordered"] if not parts else []
    return f"its vector {' and '.join(parts)}; train it again before it can serve"


def _vector(service: Service, catalog: Catalog) -> dict[str, Any]:
    """Each feature of a service with all that decides its value, in order."""
    found: dict[str, Any] = {}
    for projection in service.projections:
        for name in projection.features:
            found[f"{projection.name}:{name}"] = _meaning(projection.view, name, catalog)
    return found


def _meaning(view_name: str, feature: str, catalog: Catalog) -> tuple[Any, ...]:
    if catalog.is_on_demand(view_name):
        view = catalog.on_demand_view(view_name)
        return view.feature(feature).dtype, view.function, view.inputs
    found = catalog.view(view_name)
    aggregation = next((item for item in found.aggregations if item.name == feature), None)
    return found.feature(feature).dtype, found.source, found.join_keys, aggregation
