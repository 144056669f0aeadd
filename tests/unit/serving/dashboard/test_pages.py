"""Pages are rendered from facts alone: what they say about a project in good days and in bad ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tidemill.definitions.catalog import Feature, Schedule, View
from tidemill.definitions.types import ValueType
from tidemill.materialize.ledger import Run
from tidemill.metadata.reports import StoredReport
from tidemill.models.deployments import CHAMPION, Deployment
from tidemill_serving.dashboard import features, frame, monitoring, overview, runs
from tidemill_serving.dashboard.features import FeaturesFacts, ViewFacts
from tidemill_serving.dashboard.markup import Tone
from tidemill_serving.dashboard.monitoring import MonitoringFacts
from tidemill_serving.dashboard.overview import Champion, OverviewFacts, PartHealth
from tidemill_serving.dashboard.runs import RunsFacts

NOW = datetime(2024, 2, 1, tzinfo=UTC)
RUN = Run(
    id=7,
    view="visits",
    start=NOW - timedelta(hours=3),
    end=NOW - timedelta(hours=1),
    attempt=1,
    takeovers=0,
    kind="scheduled",
    state="succeeded",
    cutoff=NOW,
    claimed_by="worker",
    lease_until=NOW,
    started_at=NOW,
    finished_at=NOW,
    rows_read=3,
    rows_written=3,
    rows_skipped=0,
    progress=None,
    error=None,
    catalog_digest="",
)
MOVED = {"severity": "warning", "subject": "pages", "what": "Moved.", "advice": "Look.", "model": "late", "version": 1}
REPLACED = "This was said of version 1, which version 2 has replaced since."


def report(kind: str, body: dict[str, Any]) -> StoredReport:
    return StoredReport(id=1, kind=kind, subject="late", made_at=NOW, body=body)


def parity(**equal: int) -> StoredReport:
    found = [
        {"feature": name, "compared": 10, "equal": number, "unexplained": 10 - number} for name, number in equal.items()
    ]
    return report("parity", {"compared": 10 * len(found), "predictions": 10, "differences": {}, "features": found})


def champion(version: int) -> Champion:
    serves = Deployment(
        number=1, model="late", alias=CHAMPION, version=version, artifact="", digest="", reason="", changed_at=NOW
    )
    return Champion(model="late", metric="roc_auc", deployment=serves, score=0.9)


def overview_of(version: int, findings: tuple[dict[str, Any], ...]) -> OverviewFacts:
    return OverviewFacts(
        project="shop",
        now=NOW,
        simulated=True,
        parts=(),
        champions=(champion(version),),
        parity=None,
        findings=findings,
        predictions=(),
        failed_runs=2,
        steps=(),
    )


def test_findings_about_a_version_that_was_replaced_are_told_as_such():
    assert REPLACED in overview.render(overview_of(2, (MOVED,)))
    assert REPLACED not in overview.render(overview_of(1, (MOVED,)))
    looked = report("monitor", {"findings": [MOVED], "drift": {"version": 1}})
    facts = MonitoringFacts(now=NOW, models=("late",), model="late", champion=2, history=(looked,))
    assert REPLACED in monitoring.render(facts)
    assert REPLACED not in monitoring.render(replace(facts, champion=1))


def test_the_overview_shows_a_few_findings_and_the_way_to_all_of_them_and_to_what_failed():
    shown = overview.render(overview_of(1, tuple(MOVED | {"subject": f"f{number}"} for number in range(9))))
    assert "<b>f0</b>" in shown
    assert "<b>f8</b>" not in shown
    assert "<a href='/dashboard/monitoring'>all 9, on Monitoring</a>" in shown
    assert "<a href='/dashboard/runs'>why they failed</a>" in shown


def test_a_part_in_trouble_needs_attention_whatever_monitoring_says():
    gone = PartHealth(name="Online store", tone=Tone.BAD, text="Redis does not answer.")
    for findings in ((), (MOVED,)):
        shown = overview.render(replace(overview_of(1, findings), parts=(gone,)))
        attention = shown[shown.index("Needs attention") : shown.index("<h2>Parts</h2>")]
        assert "<b>Online store</b> Redis does not answer." in attention
        assert "Nothing found" not in attention


def test_a_check_that_found_nothing_to_compare_is_no_good_news():
    facts = replace(overview_of(1, ()), parity=report("parity", {"compared": 0, "equal": 0}))
    shown = overview.render(facts)
    assert "nothing that was served could be compared" in shown
    assert "<div class='tile plain'><span class='label'>Parity</span>" in shown


def test_parity_shows_what_differs_and_folds_what_does_not():
    facts = MonitoringFacts(now=NOW, models=("late",), model="late", parity=parity(temp=10, visib=9))
    shown = monitoring.render(facts)
    assert "The other 1 feature: every value equal" in shown
    assert shown.index("visib") < shown.index("<details") < shown.index("temp")
    assert "All 2 features: every value equal" in monitoring.render(replace(facts, parity=parity(temp=10, visib=10)))


def test_performance_is_drawn_over_time_once_there_are_two_times():
    versions = [{"version": 1, "labelled": 9, "metrics": {"roc_auc": 0.8}, "trained": {"roc_auc": 0.9}}]
    looks = [report("monitor", {"performance": {"versions": versions}}) for _ in range(2)]
    facts = MonitoringFacts(now=NOW, models=("late",), model="late", metrics=("roc_auc",), history=tuple(looks))
    assert "class='curves'" not in monitoring.render(facts)
    later = replace(looks[1], made_at=NOW + timedelta(days=1))
    assert "class='curves'" in monitoring.render(replace(facts, history=(looks[0], later)))


def test_a_failure_stays_in_sight_however_much_has_run_since():
    failed = replace(RUN, id=1, state="failed", error="The source is gone.")
    shown = runs.render(RunsFacts(now=NOW, runs=(RUN,), failed=(failed,)))
    assert shown.index("<h2>Failed</h2>") < shown.index("The source is gone.") < shown.index("<h2>Newest runs</h2>")
    assert "<h2>Failed</h2>" not in runs.render(RunsFacts(now=NOW, runs=(RUN,)))


def test_a_run_at_work_is_called_so_and_tells_the_day_once():
    shown = runs.render(RunsFacts(now=NOW, runs=(replace(RUN, state="claimed", finished_at=None),)))
    assert ">at work<" in shown
    assert "31 Jan 2024, 21:00</time> \u2192 " in shown
    assert ">23:00</time>" in shown


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(cron="30 3 * * *", timezone="America/New_York"), "America/New_York"),
        (Schedule(every=timedelta(hours=3)), "every 3 h"),
    ],
)
def test_a_schedule_says_by_which_clock_it_goes(schedule: Schedule, text: str):
    view = View(
        name="visits",
        entities=("customer",),
        join_keys=("customer",),
        features=(Feature(name="pages", dtype=ValueType.INT64),),
        source="visits",
        ttl=timedelta(days=2),
        schedule=schedule,
    )
    shown = features.render(
        FeaturesFacts(now=NOW, views=(ViewFacts(view=view, fresh=None, runs=(RUN,)),), on_demand=())
    )
    assert text in shown
    assert "2 d after the event (ttl)" in shown


def test_an_address_without_a_page_is_told_as_text_and_leads_on():
    shown = frame.nowhere("<script>", "shop")
    assert "/dashboard/&lt;script&gt;" in shown
    assert all(f"href='/dashboard{place}'" in shown for place, _ in frame.PAGES)
