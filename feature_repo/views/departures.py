"""How punctually flights have been leaving, over sliding windows."""

from feast import Entity, StreamFeatureView

import tidemill
from entities import carrier, destination, origin, route
from sources import departures
from windows import fields_of, over_windows


def departures_of(entity: Entity) -> StreamFeatureView:
    """Departures with the same `entity`: delays, the share 15 minutes late or more, how many left or were cancelled."""
    aggregations = [
        *over_windows(f"{entity.name}_dep_delay", "mean", "dep_delay"),
        *over_windows(f"{entity.name}_dep_late", "mean", "dep_late"),
        *over_windows(f"{entity.name}_departures", "count", "dep_delay"),
        *over_windows(f"{entity.name}_cancelled", "sum", "cancelled"),
    ]
    return StreamFeatureView(
        name=f"{entity.name}_departures",
        entities=[entity],
        schema=fields_of(aggregations),
        source=departures,
        aggregations=aggregations,
        timestamp_field="event_time",
        tags=tidemill.tags(event_id="flight_id"),
        description=f"Departures of the same {entity.name} in the last 1 h, 3 h, 24 h and 7 d.",
    )


origin_departures = departures_of(origin)
carrier_departures = departures_of(carrier)
destination_departures = departures_of(destination)
route_departures = departures_of(route)
