"""Feast definitions become a catalog, or an error that says what to change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tidemill.definitions.catalog import AggregationFunction, Freshness, Schedule, StalePolicy
from tidemill.definitions.code import load
from tidemill.definitions.on_demand import evaluate
from tidemill.definitions.types import ValueType
from tidemill.errors import ConfigurationError, DefinitionError, NotDefinedError
from tidemill.feast.compile import compile_repository

Write = Callable[..., Path]
MODEL = """
from estimators import make
flights = FileSource(name="asked", path="data/asked", timestamp_field="asked_at")
outcome = FileSource(name="outcome", path="data/outcome", timestamp_field="at")
buys = tidemill.Model(
    name="buys",
    features=offers_v1,
    spine=tidemill.Spine(
        source=flights, time="asked_at", id="request_id", keys=("customer_id",), request=("total",)
    ),
    label=tidemill.Label(source=outcome, column="bought", id="request_id"),
    estimator=make,
    split=tidemill.LastPart(test="7d"),
    gates=(tidemill.AtLeast("roc_auc", 0.6), tidemill.NotWorseThanChampion("brier", by=0.01)),
    retrain=(tidemill.OnSchedule("0 6 * * 1"), tidemill.OnNewData(rows=100)),
)
"""


def test_everything_declared_is_in_the_catalog(write_repository: Write) -> None:
    catalog = compile_repository(write_repository())

    assert catalog.project == "shop"
    assert [view.name for view in catalog.views] == ["profile", "spending"]
    assert [source.name for source in catalog.sources] == ["orders_file", "profile_file"]
    assert catalog.source("orders_file").known_field == "seen"
    assert catalog.stream("orders").source == "orders_file"
    assert catalog.entity("customer").dtype is ValueType.INT64
    assert catalog.service("offers_v1").projections[0].features == ("age",)


def test_a_kafka_source_says_where_its_events_are(write_repository: Write) -> None:
    pushed = 'orders = PushSource(name="orders", batch_source=orders_file)'
    topic = """
from feast import KafkaSource
from feast.data_format import JsonFormat

orders = KafkaSource(
    name="orders", kafka_bootstrap_servers="one:9092,two:9092", topic="shop-orders", timestamp_field="at",
    message_format=JsonFormat(schema_json=""), batch_source=orders_file,
)
"""
    stream = compile_repository(write_repository((pushed, topic))).stream("orders")

    assert (stream.kind, stream.source) == ("kafka", "orders_file")
    assert stream.address == "kafka://one:9092,two:9092/shop-orders"


def test_tags_say_when_a_view_is_kept_and_how_fresh_it_must_be(write_repository: Write) -> None:
    profile = compile_repository(write_repository()).view("profile")

    assert profile.schedule == Schedule(cron="5 * * * *", timezone="Europe/Berlin", lag=timedelta(minutes=2))
    assert profile.freshness == Freshness(max_age=timedelta(hours=2), policy=StalePolicy.NULL)
    assert profile.ttl == timedelta(days=30)
    assert not profile.is_pushed


def test_aggregations_become_windows_with_their_hops(write_repository: Write) -> None:
    spending = compile_repository(write_repository()).view("spending")
    spent, orders = spending.aggregations

    assert (spent.function, spent.column, spent.window) == (AggregationFunction.SUM, "amount", timedelta(days=1))
    assert spent.hop == timedelta(hours=1), "a slide interval that is not given leaves the hop to the window"
    assert orders.hop == timedelta(hours=6)
    assert spending.is_pushed
    assert spending.event_id == "order_id"


def test_on_demand_functions_are_named_and_not_kept(write_repository: Write) -> None:
    view = compile_repository(write_repository()).on_demand_view("discounts")

    assert (view.function.module, view.function.qualname) == ("prices", "discount")
    assert [field.name for field in view.request] == ["total"]
    assert {(item.view, item.feature) for item in view.inputs} == {("profile", "country"), ("profile", "age")}


def test_the_digest_says_whether_definitions_are_equal(write_repository: Write) -> None:
    first = compile_repository(write_repository())
    again = compile_repository(write_repository(name="elsewhere"))
    other = compile_repository(write_repository(("days=30", "days=31"), name="other"))

    assert first.digest == again.digest
    assert first.digest != other.digest


def test_reading_a_repository_leaves_the_process_as_it_was(write_repository: Write) -> None:
    root, folder, modules, path = write_repository(), Path.cwd(), set(sys.modules), list(sys.path)
    compile_repository(root)

    assert Path.cwd() == folder
    assert sys.path == path
    assert not {"definitions", "prices"} & (set(sys.modules) - modules)


def test_two_repositories_with_equal_file_names_do_not_meet(write_repository: Write) -> None:
    one = write_repository(name="one")
    two = write_repository(('name="profile"', 'name="person"'), name="two")

    assert "profile" in {view.name for view in compile_repository(one).views}
    assert "person" in {view.name for view in compile_repository(two).views}


def test_models_are_found_beside_the_features(write_repository: Write) -> None:
    root = write_repository(more=MODEL)
    (root / "estimators.py").write_text("def make():\n    return None\n")
    model = compile_repository(root).model("buys")

    assert model.service == "offers_v1"
    assert model.spine.keys == (("customer_id", "customer_id"),)
    assert (model.estimator.module, model.estimator.qualname) == ("estimators", "make")
    assert [(gate.kind, gate.metric, gate.value) for gate in model.gates] == [
        ("at_least", "roc_auc", 0.6),
        ("not_worse_than_champion", "brier", 0.01),
    ]
    assert model.retrain[0].setting("cron") == "0 6 * * 1"
    assert model.retrain[1].setting("rows") == 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("estimator=make", "estimator=lambda: None", "cannot be imported by name"),
        ("estimator=make", "estimator=dict", "<class 'dict'> is not a function"),
        ('keys=("customer_id",)', "keys=()", "gives only no keys"),
        ('request=("total",)', "request=()", "needs the request field 'total'"),
        ('request=("total",)', 'request=("total", "bought")', "is called 'bought', as a column of its spine is"),
        ('tidemill.OnSchedule("0 6 * * 1")', 'tidemill.OnSchedule("6 o\'clock")', "6 o'clock"),
    ],
)
def test_a_model_that_could_not_be_fitted_or_served_is_refused(
    write_repository: Write, old: str, new: str, message: str
) -> None:
    root = write_repository((old, new), more=MODEL)
    (root / "estimators.py").write_text("def make():\n    return None\n")

    with pytest.raises(DefinitionError, match=message):
        compile_repository(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('function="sum"', 'function="som"', "Did you mean 'sum'"),
        ('name="spent_1d"),', 'name="spent"),', "Did you mean 'spent'"),
        ('Field(name="orders_1d", dtype=Int64)', 'Field(name="orders_1d", dtype=String)', "orders_1d"),
        ("time_window=timedelta(days=1), name", "name", "no time_window"),
        ('schedule="5 * * * *"', 'schedule="5 * * *"', "profile"),
        ('timezone="Europe/Berlin"', 'timezone="Europe/Berlinn"', "Berlinn"),
        ('when_stale="null"', 'when_stale="nul"', "Did you mean 'null'"),
        ('lag="2m"', 'lag="2 minutes ago"', r"In definitions\.py:\d+: '2 minutes ago' is not a duration"),
        ('schedule="5 * * * *", ', "", "timezone='Europe/Berlin', lag='2m' has no meaning without"),
        ('max_age="2h", ', "", "when_stale='null' has no meaning without"),
        ('max_age="2h"', 'max_age="0s"', "Every value would be older"),
        (")(discount)", ')(lambda inputs: {"discount": inputs["total"]})', "cannot be imported by name"),
        ('features=[profile[["age"]], spending, discounts]', "features=[profile, profile]", "twice"),
    ],
)
def test_a_definition_that_cannot_mean_anything_is_refused(
    write_repository: Write, old: str, new: str, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        compile_repository(write_repository((old, new)))


def test_an_unknown_tag_of_ours_is_refused(write_repository: Write) -> None:
    root = write_repository(('tags=tidemill.tags(event_id="order_id")', 'tags={"tidemill.even_id": "order_id"}'))

    with pytest.raises(DefinitionError, match=r"Did you mean 'tidemill\.event_id'"):
        compile_repository(root)


def test_a_transformation_that_training_and_serving_could_not_share_is_refused(write_repository: Write) -> None:
    more = """
def double(frame):
    return frame

doubled = StreamFeatureView(
    name="doubled", entities=[customer], schema=[Field(name="x", dtype=Float64)], source=orders, udf=double,
    mode="pandas",
)
"""
    with pytest.raises(DefinitionError, match="transforms its rows"):
        compile_repository(write_repository(more=more))


def test_an_on_demand_function_called_once_for_every_row_is_refused(write_repository: Write) -> None:
    root = write_repository(('mode="python",', 'mode="python", singleton=True,'))
    (root / "prices.py").write_text("def discount(inputs):\n    return {'discount': 0.1 * inputs['total']}\n")

    with pytest.raises(DefinitionError, match="once for a whole batch"):
        compile_repository(root)


def test_an_error_in_a_module_names_the_line(write_repository: Write) -> None:
    with pytest.raises(DefinitionError, match=r"definitions\.py:\d+: ZeroDivisionError"):
        compile_repository(write_repository(more="\n1 / 0\n"))


def test_a_misspelt_key_of_the_configuration_is_refused(write_repository: Write) -> None:
    root = write_repository()
    file = root / "feature_store.yaml"
    file.write_text(file.read_text().replace("provider:", "provder:"))

    with pytest.raises(ConfigurationError, match="provder"):
        compile_repository(root)


def test_an_unknown_option_of_a_store_is_refused(write_repository: Write) -> None:
    root = write_repository()
    file = root / "feature_store.yaml"
    file.write_text(file.read_text().replace("OnlineStore}", "OnlineStore, conection_string: x}"))

    with pytest.raises(ConfigurationError, match="conection_string"):
        compile_repository(root)


def test_an_input_that_no_view_has_is_refused(write_repository: Write) -> None:
    with pytest.raises((DefinitionError, NotDefinedError), match="agee"):
        compile_repository(write_repository(('profile[["age"]]', 'profile[["agee"]]')))


def test_types_left_out_are_taken_from_the_files(write_repository: Write) -> None:
    import polars as pl

    schema = 'schema=[Field(name="country", dtype=String), Field(name="age", dtype=Int64)],\n    '
    root = write_repository((schema, ""), (', timestamp_field="at")', ")"), ("[basket, profile]", "[basket]"))
    (root / "data" / "profile").mkdir(parents=True)
    frame = pl.DataFrame({"customer_id": [1], "age": [30], "country": ["NL"], "at": [0]})
    frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC"))).write_parquet(root / "data/profile/a.parquet")
    catalog = compile_repository(root)

    assert {(item.name, item.dtype) for item in catalog.view("profile").features} == {
        ("age", ValueType.INT64),
        ("country", ValueType.STRING),
    }
    assert catalog.source("profile_file").timestamp_field == "at"


DECORATED = """
@on_demand_feature_view(sources=[basket], schema=[Field(name="discount", dtype=Float64)], mode="python")
def discounts(inputs):
    return {"discount": [RATE * total for total in inputs["total"]]}
"""
HANDED_OVER = """discounts = on_demand_feature_view(
    name="discounts", sources=[basket, profile], schema=[Field(name="discount", dtype=Float64)], mode="python",
)(discount)
"""


def test_a_function_that_feasts_decorator_hides_is_found_again(write_repository: Write) -> None:
    root = write_repository((HANDED_OVER, "from prices import RATE\n" + DECORATED))
    (root / "prices.py").write_text("RATE = 0.5\n\ndef discount(inputs):\n    return inputs\n")
    view = compile_repository(root).on_demand_view("discounts")
    assert evaluate(view, root, {"total": [1.0, 3.0]}) == {"discount": [0.5, 1.5]}


def test_a_constant_of_another_file_belongs_to_the_function(write_repository: Write) -> None:
    root = write_repository((HANDED_OVER, "from prices import RATE\n" + DECORATED))
    found = []
    for rate in ("0.5", "0.25"):
        (root / "prices.py").write_text(f"RATE = {rate}\n\ndef discount(inputs):\n    return inputs\n")
        view = compile_repository(root).on_demand_view("discounts")
        found.append((view.function.digest, evaluate(view, root, {"total": [1.0]})["discount"]))
    assert found[0][0] != found[1][0]
    assert [values for _, values in found] == [[0.5], [0.25]]
    (root / "prices.py").write_text("RATE = 1.0\n\ndef discount(inputs):\n    return inputs\n")
    with pytest.raises(DefinitionError, match="changed since it was applied"):
        load(view.function, root)


def test_a_name_that_stands_for_something_else_in_the_end_is_refused(write_repository: Write) -> None:
    own = "def discount(inputs):\n    return {'discount': inputs['total']}\n"
    later = "\n\ndef discount(inputs):\n    return {'discount': [0.0 for _ in inputs['total']]}\n"
    root = write_repository(("from prices import discount\n", own), (HANDED_OVER, HANDED_OVER + later))
    with pytest.raises(DefinitionError, match="stands for something else"):
        compile_repository(root)


LABELS = """
from feast import LabelView
judged = LabelView(
    name="judged", entities=[customer], source=orders,
    schema=[Field(name="good", dtype=Int64), Field(name="labeler", dtype=String)],
)
"""


def test_a_label_view_is_left_to_feast(write_repository: Write) -> None:
    plain = compile_repository(write_repository())
    assert compile_repository(write_repository(more=LABELS, name="labelled")).digest == plain.digest


def test_a_service_cannot_read_a_label_view(write_repository: Write) -> None:
    read = LABELS + 'with_labels = FeatureService(name="with_labels", features=[profile, judged])\n'
    with pytest.raises(DefinitionError, match="reads label view 'judged'"):
        compile_repository(write_repository(more=read))
