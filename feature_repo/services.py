"""The vectors that models read."""

from feast import FeatureService

from views.aircraft import aircraft_facts
from views.arrivals import carrier_arrivals, destination_arrivals, origin_arrivals, route_arrivals
from views.departures import carrier_departures, destination_departures, origin_departures, route_departures
from views.request import departure_request
from views.weather import weather

delay_v1 = FeatureService(
    name="delay_v1",
    features=[
        departure_request,
        weather[["temp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]],
        aircraft_facts[["built_year", "engines", "seats"]],
        origin_departures[
            [
                "origin_dep_delay_1h",
                "origin_dep_delay_3h",
                "origin_dep_late_1h",
                "origin_dep_late_3h",
                "origin_dep_late_24h",
                "origin_departures_1h",
                "origin_cancelled_3h",
                "origin_cancelled_24h",
            ]
        ],
        carrier_departures[
            ["carrier_dep_delay_3h", "carrier_dep_late_3h", "carrier_dep_late_24h", "carrier_dep_late_7d"]
        ],
        destination_departures[["destination_dep_late_3h", "destination_dep_late_24h", "destination_cancelled_24h"]],
        route_departures[["route_dep_late_24h", "route_dep_late_7d"]],
        origin_arrivals[["origin_arr_delay_1h", "origin_arr_delay_3h", "origin_arr_late_3h"]],
        carrier_arrivals[["carrier_arr_delay_3h", "carrier_arr_late_24h", "carrier_arr_late_7d"]],
        destination_arrivals[["destination_arr_delay_3h", "destination_arr_late_3h", "destination_arr_late_24h"]],
        route_arrivals[["route_arr_delay_24h", "route_arr_late_7d", "route_arrivals_7d"]],
    ],
    description="Request, weather, aeroplane and recent punctuality around one flight.",
)
