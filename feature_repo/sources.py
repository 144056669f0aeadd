"""Where the data lies and how it arrives. `extract.py` fills the folders below `data/`.

Every source says two times of each row: when the fact happened (`event_time`), and when it could be known
(`known_time`).
"""

from feast import FileSource, PushSource, RequestSource
from feast.field import Field
from feast.types import Int64, UnixTimestamp

import tidemill

weather_hourly = FileSource(
    name="weather_hourly",
    path="data/weather_hourly",
    timestamp_field="event_time",
    created_timestamp_column="known_time",
    description="What the airport's station measured, once an hour.",
    tags=tidemill.tags(schedule="1 * * * *"),
)
aircraft_register = FileSource(
    name="aircraft_register",
    path="data/aircraft_register",
    timestamp_field="event_time",
    created_timestamp_column="known_time",
    description="The register of aeroplanes; does not change during the year.",
)
departure_events = FileSource(
    name="departure_events",
    path="data/departure_events",
    timestamp_field="event_time",
    created_timestamp_column="known_time",
    description="One row for each flight when it leaves, or at its scheduled departure when it is cancelled.",
    tags=tidemill.tags(schedule="10 0 * * *"),
)
arrival_events = FileSource(
    name="arrival_events",
    path="data/arrival_events",
    timestamp_field="event_time",
    created_timestamp_column="known_time",
    description="One row for each flight when it arrives, or when it is plain that it was diverted.",
    tags=tidemill.tags(schedule="10 0 * * *"),
)

# The same two as they arrive: the stores learn of a departure when it is pushed.
departures = PushSource(name="departures", batch_source=departure_events)
arrivals = PushSource(name="arrivals", batch_source=arrival_events)

scheduled_flights = FileSource(
    name="scheduled_flights",
    path="data/scheduled_flights",
    timestamp_field="request_time",
    description="Every flight of the timetable, with the moment it is asked about: an hour before scheduled departure.",
    tags=tidemill.tags(schedule="10 0 * * *"),
)
outcomes = FileSource(
    name="outcomes",
    path="data/outcomes",
    timestamp_field="event_time",
    created_timestamp_column="known_time",
    description="How each flight ended: late is 1 for 15 minutes or more, cancelled or diverted.",
    tags=tidemill.tags(schedule="10 0 * * *"),
)

flight_request = RequestSource(
    name="flight_request",
    schema=[Field(name="scheduled_departure", dtype=UnixTimestamp), Field(name="distance", dtype=Int64)],
    description="What the caller knows about the flight: when it should leave, and how many miles it flies.",
)
