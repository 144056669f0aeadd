"""What is predicted, for whom, and when a model may serve."""

from estimators import gradient_boosting
from services import delay_v1
from sources import outcomes, scheduled_flights
from tidemill import (
    AtLeast,
    Label,
    LastPart,
    Model,
    NotWorseThanChampion,
    OnDrift,
    OnNewData,
    OnPerformance,
    OnSchedule,
    Spine,
)

arrival_delay = Model(
    name="arrival_delay",
    description="An hour before scheduled departure: will the flight arrive 15 minutes late or more, or not at all?",
    features=delay_v1,
    spine=Spine(
        source=scheduled_flights,
        time="request_time",
        id="flight_id",
        keys=("origin", "destination", "carrier", "route", "tailnum"),
        request=("scheduled_departure", "distance"),
    ),
    label=Label(source=outcomes, column="late", id="flight_id"),
    estimator=gradient_boosting,
    split=LastPart(test="60d", validation="30d"),
    metrics=("roc_auc", "average_precision", "log_loss", "brier"),
    gates=(AtLeast("roc_auc", 0.68), NotWorseThanChampion("average_precision", by=0.005)),
    retrain=(
        OnSchedule("0 6 * * 1"),
        OnDrift(psi=0.2),
        OnPerformance("roc_auc", drop=0.03),
        OnNewData(rows=20_000),
    ),
    seed=7,
)
