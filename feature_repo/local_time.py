"""What a request says about itself. Imports no feature store, so that serving can run it as it is."""


def departure_facts(inputs: dict[str, list]) -> dict[str, list]:
    """The scheduled departure as New York reads it on its clocks, and the distance.

    `scheduled_departure` is a list of instants (datetime, or ISO 8601 text; without an offset UTC is meant) or None,
    `distance` a list of miles. Everything needed is imported inside: Feast keeps the function's source on its own.
    """
    from datetime import datetime, timezone
    from zoneinfo import ZoneInfo

    new_york = ZoneInfo("America/New_York")
    hours, minutes, weekdays = [], [], []
    for moment in inputs["scheduled_departure"]:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if moment is None:
            local = None
        elif moment.tzinfo is None:
            local = moment.replace(tzinfo=timezone.utc).astimezone(new_york)  # noqa: UP017 - Feast runs this elsewhere too
        else:
            local = moment.astimezone(new_york)
        hours.append(None if local is None else local.hour)
        minutes.append(None if local is None else local.hour * 60 + local.minute)
        weekdays.append(None if local is None else local.isoweekday())
    return {
        "local_hour": hours,
        "local_minute_of_day": minutes,
        "weekday": weekdays,
        "distance_miles": list(inputs["distance"]),
    }
