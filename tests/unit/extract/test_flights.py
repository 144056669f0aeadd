"""The reference project's data: real flights, each fact known when it happened and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from tidemill.definitions.code import import_file
from tidemill.extract.declare import extractions_of

FOLDER = Path(__file__).parents[3] / "feature_repo"
YEAR = datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def flights() -> ModuleType:
    return import_file(FOLDER / "extract.py", FOLDER)


def table(name: str, start: datetime = YEAR[0], end: datetime = YEAR[1]) -> pl.DataFrame:
    return extractions_of(FOLDER)[name].function(start, end)


def test_no_flight_is_dropped() -> None:
    cancelled = table("departure_events")["cancelled"].sum()

    assert table("departure_events").height == 336_776
    assert table("outcomes").height == 336_776
    assert table("scheduled_flights").height == 336_776
    assert cancelled == 8_255
    assert table("arrival_events").height == 336_776 - cancelled
    assert table("scheduled_flights")["flight_id"].n_unique() == 336_776


def test_more_than_a_quarter_are_late_or_never_arrive() -> None:
    assert table("outcomes")["late"].mean() == pytest.approx(0.266, abs=0.0005)


def test_an_arrival_is_known_when_the_destinations_clocks_say_it_landed(flights: ModuleType) -> None:
    arrived = flights._flights().filter(pl.col("arr_delay").is_not_null())
    wrong = 0
    for (zone,), part in arrived.partition_by("zone", as_dict=True).items():
        local = pl.col("ended").dt.convert_time_zone(zone)
        shown = local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute().cast(pl.Int64)
        wrong += part.filter(shown != pl.col("arr_time") % 2400).height

    assert wrong <= 1, "one row of the package contradicts itself"


def test_nobody_lands_before_the_flight_could_have_ended(flights: ModuleType) -> None:
    flown = flights._flights().drop_nulls("air_time")
    minutes = (flown["ended"] - flown["departed"]).dt.total_minutes() - flown["air_time"]

    assert minutes.min() > 0
    assert minutes.max() < 4 * 60


@pytest.mark.parametrize(
    ("flight", "left", "ended"),
    [
        ("20130101-0515-UA1545-EWR-IAH", "2013-01-01T10:17", "2013-01-01T14:30"),  # Houston, an hour behind
        ("20130101-2030-UA1482-EWR-LAX", "2013-01-02T01:35", "2013-01-02T07:37"),  # lands in the evening, UTC's morning
        ("20130101-0615-B6709-JFK-SJU", "2013-01-01T11:15", "2013-01-01T14:39"),  # an island the package has no zone of
        ("20130309-2359-B6727-JFK-BQN", "2013-03-10T05:53", "2013-03-10T09:04"),  # the night clocks go forward
        ("20130101-1530-MQ4525-LGA-XNA", "2013-01-01T20:25", "2013-01-02T00:20"),  # diverted
        ("20130101-1630-EV4308-EWR-RDU", "2013-01-01T21:30", None),  # cancelled
    ],
)
def test_instants_are_utc(flight: str, left: str, ended: str | None) -> None:
    departure = table("departure_events").filter(flight_id=flight)
    arrival = table("arrival_events").filter(flight_id=flight)
    outcome = table("outcomes").filter(flight_id=flight)

    assert departure["event_time"].item() == datetime.fromisoformat(left).replace(tzinfo=UTC)
    assert departure["cancelled"].item() == (ended is None)
    assert arrival["event_time"].to_list() == (
        [] if ended is None else [datetime.fromisoformat(ended).replace(tzinfo=UTC)]
    )
    assert outcome["known_time"].item() == datetime.fromisoformat(ended or left).replace(tzinfo=UTC)


def test_a_cancelled_or_diverted_flight_is_late_and_has_no_delay() -> None:
    unknown = table("outcomes").filter(pl.col("arr_delay").is_null())

    assert unknown["late"].unique().to_list() == [1]
    assert table("arrival_events").filter(diverted=1)["arr_delay"].null_count() == 1_175
    assert table("departure_events").filter(cancelled=1)["dep_delay"].null_count() == 8_255


def test_every_flight_is_asked_about_an_hour_ahead() -> None:
    asked = table("scheduled_flights")

    assert (asked["scheduled_departure"] - asked["request_time"]).unique().to_list() == [timedelta(hours=1)]


@pytest.mark.parametrize("name", ["departure_events", "arrival_events", "weather_hourly", "outcomes"])
def test_days_and_hours_hold_the_same_rows(name: str) -> None:
    day = datetime(2013, 11, 3, tzinfo=UTC)  # clocks go back in New York
    hours = [table(name, day + timedelta(hours=hour), day + timedelta(hours=hour + 1)) for hour in range(24)]

    assert pl.concat(hours).equals(table(name, day, day + timedelta(days=1)))
    known = pl.concat(hours)["known_time"]
    assert known.is_sorted()
    assert day <= known.min() <= known.max() < day + timedelta(days=1)  # type: ignore[operator]


def test_the_register_is_known_before_the_year_begins() -> None:
    aircraft = table("aircraft_register")

    assert aircraft.height == 3_322
    assert aircraft["known_time"].max() < YEAR[0]  # type: ignore[operator]


def test_request_facts_are_read_from_new_yorks_clocks() -> None:
    facts = import_file(FOLDER / "local_time.py", FOLDER).departure_facts
    summer, winter = datetime(2013, 7, 1, 3, 59, tzinfo=UTC), datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    found = facts(
        {
            "scheduled_departure": [summer, winter, winter.replace(tzinfo=None), "2013-01-01T10:15:00Z", None],
            "distance": [100, 200, 300, 400, None],
        }
    )

    assert found["local_hour"] == [23, 5, 5, 5, None]
    assert found["local_minute_of_day"] == [23 * 60 + 59, 315, 315, 315, None]
    assert found["weekday"] == [summer.astimezone(ZoneInfo("America/New_York")).isoweekday(), 2, 2, 2, None]
    assert found["distance_miles"] == [100, 200, 300, 400, None]
