"""Which columns a read answers with, and what has to be read for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.definitions.catalog import Catalog, OnDemandView, Projection, View
from tidemill.definitions.column_names import refuse_equal_names
from tidemill.definitions.types import ValueType


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One column of the answer."""

    name: str
    projection: str
    feature: str
    dtype: ValueType


def columns_wanted(catalog: Catalog, projections: Sequence[Projection], full_names: bool) -> tuple[Wanted, ...]:
    """The columns of the projections. Raises DefinitionError where two would have the same name."""
    found: list[Wanted] = []
    for projection in projections:
        on_demand = catalog.is_on_demand(projection.view)
        view = catalog.on_demand_view(projection.view) if on_demand else catalog.view(projection.view)
        found += [
            Wanted(
                name=f"{projection.name}__{name}" if full_names else name,
                projection=projection.name,
                feature=name,
                dtype=view.feature(name).dtype,
            )
            for name in projection.features
        ]
    refuse_equal_names((item.name, f"{item.projection}:{item.feature}") for item in found)
    return tuple(found)


def in_order(wanted: tuple[Wanted, ...], order: Sequence[str] | None) -> tuple[Wanted, ...]:
    """The same columns in the order of `order`, which names them as `projection:feature`."""
    if order is None:
        return wanted
    by_name = {f"{item.projection}:{item.feature}": item for item in wanted}
    return tuple(by_name[name] for name in dict.fromkeys(order))


def hidden(view: str) -> str:
    """The name under which a view is read as input of on-demand views, beside whatever the service takes of it."""
    return f"\0{view}"


def with_inputs(
    catalog: Catalog, projections: Sequence[Projection], on_demand: Sequence[OnDemandView]
) -> list[Projection]:
    """The stored projections, and one more for each view that on-demand views read."""
    stored = [projection for projection in projections if not catalog.is_on_demand(projection.view)]
    inputs: dict[str, dict[str, None]] = {}
    for view in on_demand:
        for item in view.inputs:
            inputs.setdefault(item.view, {})[item.feature] = None
    for view, features in inputs.items():
        joined = next((p.join_key_map for p in stored if p.view == view), ())
        stored.append(Projection(view=view, features=tuple(features), alias=hidden(view), join_key_map=joined))
    return stored


def is_tiled(view: View) -> bool:
    """A windowed view kept current by events lies in tiles; one that runs on a schedule is written as plain values."""
    return view.is_windowed and view.is_pushed
