"""Triggers retrain, and a challenger is promoted or refused with its reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from training_shop import (
    TODAY,
    at,
    champion,
    redefine,
    rewrite,
)

from tidemill.definitions.catalog import (
    Gate,
    Trigger,
)
from tidemill.metadata.reports import ReportRepository
from tidemill.project import Project
from tidemill_training.models import list_versions
from tidemill_training.retrain import retrain


def test_nothing_is_fitted_while_no_trigger_fires(shop: Project):
    decision = retrain(shop, "order_return", at=TODAY + timedelta(hours=1))
    assert decision.outcome == "not due"
    assert len(decision.reasons) == 4
    assert [found.version for found in list_versions(shop)] == [1]


def test_enough_new_outcomes_fit_a_challenger_that_is_promoted(shop: Project):
    decision = retrain(at(shop, TODAY + timedelta(days=5)), "order_return", at=TODAY + timedelta(days=5))
    fired = {check.kind: check.reason for check in decision.fired}
    assert fired["new_data"].startswith("360 outcomes became known")
    assert decision.outcome == "promoted"
    assert champion(shop) == 2


def test_a_schedule_fires_once_for_each_tick(shop: Project):
    monday = datetime(2024, 2, 26, 6, tzinfo=UTC)
    redefine(shop, retrain=(Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC"))),))
    assert not retrain(at(shop, monday), "order_return", at=monday - timedelta(seconds=1)).fired
    assert retrain(shop, "order_return", at=monday).fired
    assert not retrain(shop, "order_return", at=monday).fired


def test_a_worse_challenger_is_refused_with_its_reasons_and_the_decision_is_kept(shop: Project):
    week = TODAY + timedelta(days=7)
    late = pl.col("event_time") > TODAY - timedelta(days=30)
    rewrite(shop, "visits", lambda v: v.with_columns(mean_visit=pl.when(~late).then("mean_visit").otherwise(0.0)))
    redefine(shop, gates=(Gate(kind="at_least", metric="roc_auc", value=0.65),))
    decision = retrain(at(shop, week), "order_return", at=week, force=True)
    assert decision.outcome == "refused"
    assert "is below 0.65" in decision.reasons[0]
    assert champion(shop) == 1
    kept = ReportRepository(shop.database, shop.name).newest("retrain", "order_return")
    assert kept is not None
    assert (kept.body["outcome"], kept.made_at) == ("refused", week)
    assert kept.body["triggers"][-1] == {"kind": "on_demand", "fired": True, "reason": "asked for"}


def test_without_a_champion_there_is_reason_enough(fresh_shop: Project):
    decision = retrain(fresh_shop, "order_return", at=TODAY)
    assert decision.outcome == "promoted"
    assert decision.fired[0].reason == "there is no champion yet"


def test_what_was_learned_from_already_is_no_reason_to_fit_again(shop: Project):
    """A refused challenger leaves the champion as it was, and with it whatever is the matter."""
    redefine(shop, gates=(Gate(kind="at_least", metric="roc_auc", value=1.0),))
    later = TODAY + timedelta(days=5)
    assert retrain(at(shop, later), "order_return", at=later).outcome == "refused"

    again = retrain(shop, "order_return", at=later + timedelta(minutes=1))
    assert again.outcome == "not due"
    [asked] = [check for check in again.triggers if check.kind == "new_data"]
    assert "but 1 outcomes became known since version 2 was fitted, another takes" in asked.reason

    redefine(shop, gates=(Gate(kind="at_least", metric="roc_auc", value=0.5),))
    assert retrain(shop, "order_return", at=later + timedelta(minutes=2)).outcome == "promoted"


def test_a_schedule_fits_again_even_where_there_is_nothing_new(shop: Project):
    monday = datetime(2024, 2, 26, 6, tzinfo=UTC)
    redefine(shop, retrain=(Trigger(kind="schedule", settings=(("cron", "0 * * * *"), ("timezone", "UTC"))),))
    assert retrain(at(shop, monday), "order_return", at=monday).fired
    assert retrain(shop, "order_return", at=monday + timedelta(hours=1)).fired
