"""Weather at the airport of departure."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Float64, Int64

import tidemill
from entities import origin
from sources import weather_hourly

weather = FeatureView(
    name="weather",
    entities=[origin],
    ttl=timedelta(hours=3),
    schema=[
        Field(name="temp", dtype=Float64, description="degrees Fahrenheit"),
        Field(name="dewp", dtype=Float64, description="dew point, degrees Fahrenheit"),
        Field(name="humid", dtype=Float64, description="relative humidity in percent"),
        Field(name="wind_dir", dtype=Int64, description="degrees; null in still or turning wind"),
        Field(name="wind_speed", dtype=Float64, description="miles an hour"),
        Field(name="wind_gust", dtype=Float64, description="miles an hour; null without gusts"),
        Field(name="precip", dtype=Float64, description="inches in the hour"),
        Field(name="pressure", dtype=Float64, description="millibars at sea level"),
        Field(name="visib", dtype=Float64, description="miles"),
    ],
    source=weather_hourly,
    tags=tidemill.tags(schedule="5 * * * *", lag="1m", max_age="3h"),
    description="The newest hourly measurement, at most three hours old.",
)
