"""The aeroplane that is to fly."""

from feast import FeatureView, Field
from feast.types import Int64, String

import tidemill
from entities import aircraft
from sources import aircraft_register

aircraft_facts = FeatureView(
    name="aircraft_facts",
    entities=[aircraft],
    schema=[
        Field(name="built_year", dtype=Int64),
        Field(name="engines", dtype=Int64),
        Field(name="seats", dtype=Int64),
        Field(name="manufacturer", dtype=String),
    ],
    source=aircraft_register,
    tags=tidemill.tags(schedule="30 3 * * *", timezone="America/New_York", lag="5m"),
    description="Age and size of the aeroplane, where the register knows it.",
)
