"""`tidemill dataset build` and `tidemill leaks` on a small project: what a user sees, and what bad input does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feast_settings import settings_of
from typer.testing import CliRunner, Result

from tidemill.clock import SimulatedClock
from tidemill.errors import ConfigurationError, NotDefinedError, SourceError, TrainingDataError

START = datetime(2024, 5, 1, tzinfo=UTC)
NOW = START + timedelta(days=10)
TAXIS, HOURS, RIDES = 20, 200, 3_000
DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

import tidemill
from fitting import simple

taxi = Entity(name="taxi", join_keys=["taxi"], value_type=ValueType.INT64)
ride = Entity(name="ride", join_keys=["ride"], value_type=ValueType.STRING)


def view(name, entity=taxi, known="", schedule=""):
    source = FileSource(name=name, path=f"data/{name}", timestamp_field="event", created_timestamp_column=known)
    return FeatureView(
        name=f"{name}_view", entities=[entity], source=source, schema=[Field(name=name, dtype=Float64)],
        tags=tidemill.tags(schedule=schedule, lag="10m") if schedule else {},
    )


honest = view("honest", known="known", schedule="0 * * * *")
recorded = view("recorded")
forecast = view("forecast")
fresh = view("fresh", schedule="0 * * * *")
told = view("told", entity=ride, known="known")
asked = FileSource(name="asked", path="data/asked", timestamp_field="at")
outcomes = FileSource(name="outcomes", path="data/outcomes", timestamp_field="at", created_timestamp_column="learned")


def model(name, *views):
    service = FeatureService(name=f"{name}_v1", features=list(views))
    return service, tidemill.Model(
        name=name, features=service,
        spine=tidemill.Spine(source=asked, time="at", id="ride", keys=("taxi", "ride")),
        label=tidemill.Label(source=outcomes, column="late", id="ride"),
        estimator=simple, split=tidemill.LastPart(test="1d", validation="1d"), metrics=("roc_auc",),
    )


honest_v1, honest_model = model("honest_model", honest)
leaky_v1, leaky_model = model("leaky_model", honest, recorded, forecast, fresh, told)
"""
Run = Callable[..., Result]


def hourly(name: str, rng: np.random.Generator, *, hours: int = HOURS) -> pl.DataFrame:
    event = [START + timedelta(hours=int(hour)) for hour in np.repeat(np.arange(hours), TAXIS)]
    return pl.DataFrame({"taxi": np.tile(np.arange(TAXIS), hours), "event": event, name: rng.random(TAXIS * hours)})


def write_data(root: Path) -> None:
    rng = np.random.default_rng(8)
    at = [START + timedelta(hours=float(hour)) for hour in np.sort(rng.uniform(5, HOURS, RIDES))]
    rides = pl.DataFrame({"ride": [f"r{row}" for row in range(RIDES)], "at": at, "taxi": rng.integers(0, TAXIS, RIDES)})
    late = pl.Series("late", rng.integers(0, 2, RIDES))
    event, before = pl.col("event"), pl.col("at") - timedelta(seconds=1)
    tables = {
        "honest": hourly("honest", rng).with_columns(known=event + timedelta(minutes=4)),
        "recorded": hourly("recorded", rng).with_columns(arrived_at=event + timedelta(hours=5)),
        "forecast": hourly("forecast", rng, hours=2 * HOURS),
        "fresh": hourly("fresh", rng),
        "told": rides.with_columns(late).select("ride", event=before, known=before, told=pl.col("late") * 1.0),
        "asked": rides,
        "outcomes": rides.select("ride", "at", learned=pl.col("at") + timedelta(hours=2)).with_columns(late),
    }
    for name, frame in tables.items():
        (root / "data" / name).mkdir(parents=True)
        frame.write_parquet(root / "data" / name / "all.parquet")


@pytest.fixture(scope="module")
def taxis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import tidemill
    from tidemill.feast.apply import apply

    root = tmp_path_factory.mktemp("taxis") / "project"
    root.mkdir()
    (root / "feature_store.yaml").write_text(settings_of("taxis"))
    (root / "definitions.py").write_text(DEFINITIONS)
    (root / "fitting.py").write_text("def simple():\n    return None\n")
    write_data(root)
    project = tidemill.open(root)
    SimulatedClock(project.state / "clock.json").set(NOW)
    apply(project, at=NOW)
    yield root
    project.close()


@pytest.fixture
def run(taxis: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    from tidemill.cli.main import app

    monkeypatch.setenv("COLUMNS", "300")

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--project", str(taxis)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_each_kind_of_leak_is_named_on_the_model_it_was_planted_in(run: Run) -> None:
    found = json.loads(run("leaks", "leaky_model", "--json").stdout)

    assert {(leak["feature"], leak["kind"]) for leak in found} == {
        ("recorded", "known_after_request"),
        ("forecast", "event_ahead_of_knowledge"),
        ("fresh", "fresher_than_its_schedule"),
        ("told", "too_predictive"),
    }
    shown = run("leaks", "leaky_model")
    assert shown.exit_code == 1
    assert "declare it as the known time of source 'recorded'" in shown.stdout
    assert "this feature alone reaches a ROC AUC of 1.000" in shown.stdout


def test_an_honest_model_is_left_in_peace(run: Run) -> None:
    shown = run("leaks", "honest_model")
    assert (shown.exit_code, shown.stdout) == (0, "No feature of 'honest_model' knows the future.\n")
    assert json.loads(run("leaks", "honest_model", "--json").stdout) == []


def test_a_dataset_is_built_once_under_its_digest(run: Run, taxis: Path, tmp_path: Path) -> None:
    from tidemill.offline.datasets import read_dataset

    first = json.loads(run("dataset", "build", "honest_model", "--json").stdout)
    again = run("dataset", "build", "honest_model").stdout
    elsewhere = json.loads(run("dataset", "build", "honest_model", "--to", str(tmp_path / "kept"), "--json").stdout)
    event_mode = json.loads(run("dataset", "build", "honest_model", "--mode", "event", "--json").stdout)

    assert f"{RIDES:,} rows written to {first['folder']}, digest {first['digest'][:16]}." in again
    assert elsewhere["digest"] == first["digest"] != event_mode["digest"]
    assert elsewhere["manifest"] == first["manifest"]
    assert first["manifest"]["sources"]["honest"]["files"][0]["file"] == "all.parquet"
    assert len(list((taxis / ".tidemill" / "datasets" / "honest_model").iterdir())) == 2
    kept = read_dataset(Path(elsewhere["folder"]))
    kept.verify()
    assert kept.scan().collect_schema().names() == ["ride", "at", "taxi", "late", "honest"]


def test_what_cannot_be_built_is_said_in_words_and_leaves_nothing(run: Run, taxis: Path, tmp_path: Path) -> None:
    with pytest.raises(NotDefinedError, match="Did you mean 'honest_model'"):
        run("dataset", "build", "honest_modle")
    with pytest.raises(ConfigurationError, match="too low"):
        run("dataset", "build", "honest_model", "--memory-limit", "10mb", "--to", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="not a size"):
        run("dataset", "build", "honest_model", "--memory-limit", "plenty", "--to", str(tmp_path / "none"))
    with pytest.raises(TrainingDataError, match=r"ends \(2024-05-02.*\) before it starts"):
        run("dataset", "build", "honest_model", "--start", "2024-05-03", "--end", "2024-05-02")
    with pytest.raises(TrainingDataError, match="'asked' asks about nobody in that time"):
        run("dataset", "build", "honest_model", "--start", "2023-05-03", "--end", "2023-05-04")
    file = taxis / "data" / "honest" / "all.parquet"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match=r"all\.parquet"):
            run("dataset", "build", "honest_model", "--to", str(tmp_path / "none"))
        file.unlink()
        (file.parent / "other.parquet").write_bytes(b"")
        with pytest.raises(SourceError, match=r"other\.parquet"):
            run("dataset", "build", "honest_model", "--to", str(tmp_path / "none"))
    finally:
        (file.parent / "other.parquet").unlink(missing_ok=True)
        file.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["asked", "outcomes"])
def test_a_damaged_file_of_the_spine_is_named(run: Run, taxis: Path, tmp_path: Path, source: str) -> None:
    file = taxis / "data" / source / "all.parquet"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:4] + b"\xff" * 2_000 + whole[2_004:])
        with pytest.raises(SourceError, match=rf"all\.parquet of source '{source}' cannot be read"):
            run("dataset", "build", "honest_model", "--to", str(tmp_path / "none"))
    finally:
        file.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []
