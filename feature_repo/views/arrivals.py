"""How punctually flights have been arriving, over sliding windows."""

from feast import Entity, StreamFeatureView

import tidemill
from entities import carrier, destination, origin, route
from sources import arrivals
from windows import fields_of, over_windows


def arrivals_of(entity: Entity) -> StreamFeatureView:
    """Arrivals with the same `entity`: their delays, the share 15 minutes late or more, and how many there were."""
    aggregations = [
        *over_windows(f"{entity.name}_arr_delay", "mean", "arr_delay"),
        *over_windows(f"{entity.name}_arr_late", "mean", "arr_late"),
        *over_windows(f"{entity.name}_arrivals", "count", "arr_delay"),
    ]
    return StreamFeatureView(
        name=f"{entity.name}_arrivals",
        entities=[entity],
        schema=fields_of(aggregations),
        source=arrivals,
        aggregations=aggregations,
        timestamp_field="event_time",
        tags=tidemill.tags(event_id="flight_id"),
        description=f"Arrivals of the same {entity.name} in the last 1 h, 3 h, 24 h and 7 d.",
    )


origin_arrivals = arrivals_of(origin)
carrier_arrivals = arrivals_of(carrier)
destination_arrivals = arrivals_of(destination)
route_arrivals = arrivals_of(route)
