"""Features computed from the request itself."""

from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64

from local_time import departure_facts
from sources import flight_request

departure_request = on_demand_feature_view(
    name="departure_request",
    sources=[flight_request],
    schema=[
        Field(name="local_hour", dtype=Int64),
        Field(name="local_minute_of_day", dtype=Int64),
        Field(name="weekday", dtype=Int64),
        Field(name="distance_miles", dtype=Int64),
    ],
    mode="python",
    description="Hour, minute of the day and weekday (Monday is 1) on New York's clocks, and the distance in miles.",
)(departure_facts)
