"""What the features describe."""

from feast import Entity, ValueType

origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="Airport of departure, by its three letters: EWR, JFK or LGA.",
)
destination = Entity(
    name="destination",
    join_keys=["destination"],
    value_type=ValueType.STRING,
    description="Airport of arrival, by its three letters.",
)
carrier = Entity(
    name="carrier",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="Airline, by its two letters.",
)
route = Entity(
    name="route",
    join_keys=["route"],
    value_type=ValueType.STRING,
    description="Origin and destination, such as JFK-LAX.",
)
aircraft = Entity(
    name="aircraft",
    join_keys=["tailnum"],
    value_type=ValueType.STRING,
    description="One aeroplane, by the number on its tail.",
)
