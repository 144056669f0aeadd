"""`verify`: equal where serving kept its promise, and for each kind of difference the right name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tidemill.definitions import Catalog, Feature, Projection, RequestField, Service, ValueType
from tidemill.definitions.catalog import Aggregation, AggregationFunction, OnDemandInput, OnDemandView
from tidemill.definitions.code import reference_to
from tidemill.errors import NotDefinedError
from tidemill.extract.intervals import Interval
from tidemill.metadata.reports import ReportRepository
from tidemill.monitor.parity import verify
from tidemill.monitor.parity_report import Outcome, ParityReport

Minutes = Callable[[float], datetime]


def only(report: ParityReport, feature: str) -> Outcome:
    """The one outcome that every value of a feature had."""
    counts = {outcome: count for outcome, count in report.feature(feature).counts.items() if count}
    assert len(counts) == 1, counts
    return next(iter(counts))


def test_what_the_store_held_is_equal(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-10), temp=60.1, gusts=None)
    airports.history.add("measured", key="JFK", at=minutes(20), temp=99.0, gusts=7)  # after the tick: not held yet
    airports.history.add("delayed", key="JFK", at=minutes(29), delay=0.1 + 0.2)
    airports.serve(minutes(30), temp=60.1, gusts=None, delay=0.3, statuses={"gusts": "NULL_VALUE"})
    airports.serve(minutes(30), origin="LGA", temp=None, gusts=None, delay=None)
    report = verify(airports.project)
    assert (report.compared, report.equal, report.ok) == (6, 6, True)
    assert report.predictions == 2
    assert report.notes == ()


def test_a_served_value_that_the_store_never_held_is_unexplained_and_shown(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=5.0)
    report = verify(airports.project, model="late")
    assert only(report, "delay") is Outcome.UNEXPLAINED
    assert not report.ok
    assert (report.examples[0].served, report.examples[0].recomputed) == ("5.0", "4.0")
    assert report.examples[0].keys == '{"origin": "JFK"}'


def test_floats_may_differ_by_one_in_a_thousand_million(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=1.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=1.0 + 5e-10)
    airports.serve(minutes(31), temp=None, gusts=None, delay=1.0 + 5e-9)
    assert dict(verify(airports.project).feature("delay").counts) == {Outcome.EQUAL: 1, Outcome.UNEXPLAINED: 1}


def test_during_a_run_the_value_before_or_after_is_accepted(airports: Any, minutes: Minutes) -> None:
    airports.ran("weather", tick=minutes(0), started=minutes(0), finished=minutes(1))
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(64))
    airports.history.add("measured", key="JFK", at=minutes(-30), temp=1.0, gusts=1)
    airports.history.add("measured", key="JFK", at=minutes(50), temp=2.0, gusts=2)
    airports.serve(minutes(62), temp=2.0, gusts=1, delay=None)  # half written: one new value, one old
    report = verify(airports.project)
    assert only(report, "temp") is Outcome.WRITTEN_DURING_RUN
    assert only(report, "gusts") is Outcome.EQUAL
    assert report.ok


def test_between_runs_the_coming_value_is_not_accepted(airports: Any, minutes: Minutes) -> None:
    airports.ran("weather", tick=minutes(0), started=minutes(0), finished=minutes(1))
    airports.ran("weather", tick=minutes(60), started=minutes(60), finished=minutes(64))
    airports.history.add("measured", key="JFK", at=minutes(-30), temp=1.0, gusts=1)
    airports.history.add("measured", key="JFK", at=minutes(50), temp=2.0, gusts=2)
    airports.serve(minutes(55), temp=2.0, gusts=1, delay=None)
    airports.serve(minutes(70), temp=1.0, gusts=2, delay=None)
    assert verify(airports.project, late_within=timedelta(0)).feature("temp").count(Outcome.UNEXPLAINED) == 2


def test_a_failed_run_leaves_the_store_in_between_until_the_next_succeeds(airports: Any, minutes: Minutes) -> None:
    ledger = airports.project.ledger
    airports.ran("weather", tick=minutes(0), started=minutes(0), finished=minutes(1))
    claim = ledger.claim("weather", start=minutes(0), end=minutes(60), at=minutes(60))
    ledger.fail(claim, error="killed", at=minutes(61))
    airports.history.add("measured", key="JFK", at=minutes(-30), temp=1.0, gusts=1)
    airports.history.add("measured", key="JFK", at=minutes(50), temp=2.0, gusts=2)
    airports.serve(minutes(90), temp=2.0, gusts=1, delay=None)
    assert only(verify(airports.project), "temp") is Outcome.WRITTEN_DURING_RUN


def test_an_event_delivered_a_little_late_is_late_data(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.history.add("delayed", key="JFK", at=minutes(29.9), delay=8.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=4.0)
    report = verify(airports.project)
    assert only(report, "delay") is Outcome.LATE_DATA
    assert report.ok


def test_an_event_served_before_its_known_time_is_late_data_too(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.history.add("delayed", key="JFK", at=minutes(29), known=minutes(30.1), delay=8.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=8.0)
    assert only(verify(airports.project), "delay") is Outcome.LATE_DATA


def test_a_history_that_claims_to_have_known_hours_earlier_stays_unexplained(airports: Any, minutes: Minutes) -> None:
    # A leak: the source says an arrival was known at scheduled departure; serving learned of it when it happened.
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.history.add("delayed", key="JFK", at=minutes(60), delay=120.0)
    airports.serve(minutes(180), temp=None, gusts=None, delay=4.0)
    assert only(verify(airports.project), "delay") is Outcome.UNEXPLAINED


def test_events_that_came_late_to_a_source_without_a_known_time_come_with_advice(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    timeless = tuple(replace(s, known_field=None) if s.name == "delayed" else s for s in catalog.sources)
    airports = make_airports(replace(catalog, sources=timeless))
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=None)
    report = verify(airports.project)
    assert only(report, "delay") is Outcome.UNEXPLAINED
    assert [note for note in report.notes if note.startswith("delayed has no created_timestamp_column")]


def test_a_pushed_view_that_was_served_before_it_was_loaded_comes_with_advice(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(-90), delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=None)
    advice = "delays had not been loaded when it was first asked"
    assert [note for note in verify(airports.project).notes if note.startswith(advice)]
    airports.ran("delays", tick=minutes(20), started=minutes(20), finished=minutes(21))
    assert not [note for note in verify(airports.project).notes if note.startswith(advice)]


def test_a_value_at_the_very_end_of_its_ttl_may_go_either_way(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-1), temp=1.0, gusts=1)
    almost = minutes(179) + timedelta(milliseconds=300)
    expired = {"temp": "OUTSIDE_MAX_AGE", "gusts": "OUTSIDE_MAX_AGE"}
    airports.serve(almost, temp=1.0, gusts=None, delay=None, statuses={"gusts": "OUTSIDE_MAX_AGE"})
    airports.serve(minutes(185), temp=None, gusts=None, delay=None, statuses=expired)
    report = verify(airports.project)
    assert report.feature("temp").counts == {Outcome.EQUAL: 1, Outcome.TTL: 1}
    assert only(report, "gusts") is Outcome.EQUAL


def test_an_expired_value_that_was_served_is_unexplained(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-1), temp=1.0, gusts=1)
    airports.serve(minutes(240), temp=1.0, gusts=None, delay=None)
    assert only(verify(airports.project), "temp") is Outcome.UNEXPLAINED


def test_the_same_value_in_another_type_is_named_so(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-1), temp=1.0, gusts=3)
    airports.serve(minutes(30), temp="1.0", gusts=3.0, delay=None)
    airports.serve(minutes(30), temp="one", gusts=4.0, delay=None)
    report = verify(airports.project)
    assert report.feature("temp").counts == {Outcome.TYPE: 1, Outcome.UNEXPLAINED: 1}
    assert report.feature("gusts").counts == {Outcome.TYPE: 1, Outcome.UNEXPLAINED: 1}


def test_a_status_that_contradicts_its_value_is_not_equal(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-60), temp=1.0, gusts=None)
    airports.serve(minutes(30), temp=1.0, gusts=None, delay=None, statuses={"temp": "NOT_FOUND", "gusts": "NOT_FOUND"})
    airports.serve(minutes(30), origin="LGA", temp=None, gusts=None, delay=None, statuses={"temp": "PRESENT"})
    report = verify(airports.project)
    assert only(report, "temp") is Outcome.UNEXPLAINED
    assert report.feature("gusts").counts == {Outcome.EQUAL: 1, Outcome.UNEXPLAINED: 1}


def test_a_feature_that_is_not_in_the_log_is_not_passed_over(airports: Any, minutes: Minutes) -> None:
    airports.history.add("measured", key="JFK", at=minutes(-1), temp=1.0, gusts=None)
    airports.serve(minutes(30), temp=1.0, delay=None)
    report = verify(airports.project)
    assert only(report, "gusts") is Outcome.UNEXPLAINED
    assert report.examples[0].served == "absent"


def test_a_value_of_earlier_definitions_is_named_so(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    # Until now the weather was kept forever; from now on for three hours. The store still holds what it held.
    forever = replace(catalog, views=(replace(catalog.view("weather"), ttl=timedelta(0)), catalog.view("delays")))
    airports = make_airports(forever)
    airports.project.catalogs.add(catalog, at=minutes(1))
    airports.project.reload()
    airports.history.add("measured", key="JFK", at=minutes(-60), temp=1.0, gusts=2)
    airports.serve(minutes(240), temp=1.0, gusts=3, delay=None)
    report = verify(airports.project)
    assert only(report, "temp") is Outcome.DEFINITION_CHANGED
    assert only(report, "gusts") is Outcome.UNEXPLAINED


def test_what_was_served_under_earlier_definitions_is_verified_under_those(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    forever = replace(catalog, views=(replace(catalog.view("weather"), ttl=timedelta(0)), catalog.view("delays")))
    airports = make_airports(forever)
    airports.history.add("measured", key="JFK", at=minutes(-60), temp=1.0, gusts=2)
    airports.serve(minutes(240), temp=1.0, gusts=2, delay=None)
    airports.project.catalogs.add(catalog, at=minutes(250))
    airports.project.reload()
    expired = {"temp": "OUTSIDE_MAX_AGE", "gusts": "OUTSIDE_MAX_AGE"}
    airports.serve(minutes(260), temp=None, gusts=None, delay=None, statuses=expired)
    report = verify(airports.project)
    assert (report.equal, report.compared) == (6, 6)


def test_predictions_under_forgotten_definitions_are_noted(airports: Any, minutes: Minutes) -> None:
    airports.serve(minutes(30), temp=None, gusts=None, delay=None, digest="gone")
    assert "does not keep" in verify(airports.project).notes[0]


def test_an_on_demand_value_is_computed_again_and_differs_as_its_input_does(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes, tmp_path: Any
) -> None:
    (tmp_path / "asked.py").write_text(
        "def doubled(inputs):\n"
        "    return {'worse': [None if d is None else d * k for d, k in zip(inputs['delay'], inputs['factor'])]}\n"
    )
    airports = make_airports(with_on_demand(catalog, tmp_path))
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.history.add("delayed", key="JFK", at=minutes(29.9), delay=8.0)
    airports.project.predictions.append(
        [
            *records(airports, minutes(20), delay=4.0, worse=12.0),
            *records(airports, minutes(30), delay=4.0, worse=12.0),
            *records(airports, minutes(31), delay=8.0, worse=25.0),
        ]
    )
    report = verify(airports.project)
    assert report.feature("delay").counts == {Outcome.EQUAL: 2, Outcome.LATE_DATA: 1}
    expected = {Outcome.EQUAL: 1, Outcome.LATE_DATA: 1, Outcome.UNEXPLAINED: 1}
    assert report.feature("worse").counts == expected


def test_an_on_demand_view_whose_code_changed_says_so(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes, tmp_path: Any
) -> None:
    code = tmp_path / "asked.py"
    code.write_text("def doubled(inputs):\n    return {'worse': inputs['delay']}\n")
    airports = make_airports(with_on_demand(catalog, tmp_path))
    code.write_text("def doubled(inputs):\n    return {'worse': [0.0 for _ in inputs['delay']]}\n")
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    airports.project.predictions.append(records(airports, minutes(20), delay=4.0, worse=4.0))
    report = verify(airports.project)
    assert only(report, "worse") is Outcome.DEFINITION_CHANGED
    assert "changed since it was applied" in report.notes[0]


def with_on_demand(catalog: Catalog, root: Any) -> Catalog:
    import importlib.util

    spec = importlib.util.spec_from_file_location("asked", root / "asked.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    view = OnDemandView(
        name="asked",
        features=(Feature(name="worse", dtype=ValueType.DOUBLE),),
        function=reference_to(module.doubled, root),
        mode="python",
        inputs=(OnDemandInput(view="delays", feature="delay"),),
        request=(RequestField(name="factor", dtype=ValueType.INT64),),
    )
    projections = (Projection(view="delays", features=("delay",)), Projection(view="asked", features=("worse",)))
    return replace(catalog, on_demand_views=(view,), services=(Service(name="both", projections=projections),))


def records(airports: Any, at: datetime, **features: Any) -> list[Any]:
    import json

    from tidemill.clock import to_micros
    from tidemill.predictions.log import PredictionRecord

    return [
        PredictionRecord(
            prediction_id=airports.project.predictions.new_ids(1)[0],
            model="late",
            version=1,
            service="both",
            catalog_digest=airports.project.catalog.digest,
            at=to_micros(at),
            id=None,
            keys='{"origin": "JFK"}',
            request='{"factor": 3}',
            features=json.dumps(features),
            statuses="{}",
            prediction=0.5,
        )
    ]


def test_only_the_interval_asked_for_is_verified_and_the_report_is_kept(airports: Any, minutes: Minutes) -> None:
    for minute in (10, 20, 30):
        airports.serve(minutes(minute), temp=None, gusts=None, delay=None)
    report = verify(airports.project, start=minutes(15), end=minutes(30), at=minutes(600))
    assert (report.predictions, report.start, report.end) == (1, minutes(20), minutes(20))
    kept = ReportRepository(airports.project.database, "airports").newest("parity")
    assert kept is not None
    assert kept.made_at == minutes(600)
    assert kept.body == report.to_dict()


def test_nothing_served_is_nothing_to_compare(airports: Any) -> None:
    report = verify(airports.project)
    assert (report.compared, report.ok, report.start) == (0, True, None)


def test_an_unknown_model_is_named_with_what_was_meant(airports: Any) -> None:
    with pytest.raises(NotDefinedError, match="late"):
        verify(airports.project, model="latte")


def test_predictions_later_than_what_history_has_of_a_pushed_view_wait(airports: Any, minutes: Minutes) -> None:
    airports.history.add("delayed", key="JFK", at=minutes(5), delay=4.0)
    landed = Interval(minutes(-60), minutes(20)).file_name
    (airports.project.root / "delayed" / "rows.parquet").rename(airports.project.root / "delayed" / landed)
    airports.serve(minutes(10), temp=None, gusts=None, delay=4.0)
    airports.serve(minutes(30), temp=None, gusts=None, delay=9.0)
    report = verify(airports.project)
    assert (report.predictions, report.compared, report.ok) == (1, 3, True)
    (note,) = report.notes
    assert "1 predictions are not compared yet" in note
    assert "Extract it until" in note


def test_a_sum_that_did_not_fit_was_rightly_served_as_null(
    make_airports: Callable[[Catalog], Any], catalog: Catalog, minutes: Minutes
) -> None:
    functions = {"temp": AggregationFunction.MEAN, "gusts": AggregationFunction.SUM}
    windows = replace(
        catalog.view("weather"),
        ttl=timedelta(0),
        schedule=None,
        stream="delays_stream",
        aggregations=tuple(
            Aggregation(name=name, function=function, column=name, window=timedelta(hours=1), hop=timedelta(minutes=5))
            for name, function in functions.items()
        ),
    )
    airports = make_airports(replace(catalog, views=(windows, catalog.view("delays"))))
    for number in range(2):
        airports.history.add("measured", key="JFK", at=minutes(number), temp=4.0, gusts=2**62)
    airports.history.add("delayed", key="JFK", at=minutes(0), delay=1.0)
    airports.serve(minutes(0), temp=4.0, gusts=2**62, delay=1.0)
    airports.serve(minutes(10), temp=4.0, gusts=None, delay=1.0, statuses={"gusts": "NULL_VALUE"})
    report = verify(airports.project)
    assert (report.equal, report.compared) == (6, 6)
    airports.serve(minutes(11), temp=4.0, gusts=-(2**63), delay=1.0)
    report = verify(airports.project, start=minutes(11))
    assert (only(report, "gusts"), only(report, "temp")) == (Outcome.UNEXPLAINED, Outcome.EQUAL)
