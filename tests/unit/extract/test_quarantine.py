"""Rows in quarantine: told by source and reason, shown, cleared by hand or after a time, and nowhere but there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from tidemill.cli.main import app
from tidemill.definitions.catalog import Catalog, Source
from tidemill.errors import ConfigurationError, InputError, NotDefinedError, SourceError
from tidemill.extract import Quarantine, extract
from tidemill.extract.validation import REASON
from tidemill.project import Project, open_project

START, DAY = datetime(2024, 3, 1, tzinfo=UTC), timedelta(days=1)

BODY = """
    ORDERS = Contract(columns={"id": Column(int, min=1), "who": Column(str, nullable=False), "at": datetime,
        "known": datetime}, most_bad=0.5)

    @extracts(source="orders", contract=ORDERS)
    def orders(start, end):
        rows = {"id": [0, 1, 2, 3], "who": ["[/b] ada", None, "[i]", "eve"], "at": [start] * 4, "known": [start] * 4}
        return pl.DataFrame(rows)
"""


@pytest.fixture
def three_days(project: Project, extraction: Callable[[str], None]) -> Project:
    """Three days of which each has two bad rows."""
    extraction(BODY)
    extract(project, start=START, end=START + 3 * DAY)
    return project


def command(project: Project, *words: str) -> Result:
    return CliRunner().invoke(app, ["quarantine", *words, "--project", str(project.root)], env={"COLUMNS": "250"})


def as_json(project: Project, *words: str) -> list[dict[str, object]]:
    done = command(project, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_what_is_wrong_is_told_by_source_and_reason(three_days: Project) -> None:
    faults = [asdict(fault) for fault in Quarantine(three_days.state).faults()]
    assert [(one["source"], one["reason"], one["rows"], one["intervals"]) for one in faults] == [
        ("orders", "id is less than 1", 3, 3),
        ("orders", "who is null", 3, 3),
    ]
    assert {(one["first"], one["last"]) for one in faults} == {(START, START + 3 * DAY)}
    assert [one["rows"] for one in as_json(three_days, "list", "orders")] == [3, 3]
    shown = command(three_days, "list").output
    assert "who is null" in shown
    assert "tidemill quarantine show orders" in shown


def test_the_rows_are_shown_with_their_reasons_the_newest_first_and_as_they_are(three_days: Project) -> None:
    shown = as_json(three_days, "show", "orders", "--limit", "3")
    assert [row["reason"] for row in shown] == ["id is less than 1", "who is null", "id is less than 1"]
    assert shown[0]["interval"] == "2024-03-03 00:00:00 to 2024-03-04 00:00:00"
    assert shown[0]["row"] == {"id": 0, "who": "[/b] ada", "at": "2024-03-03T00:00:00+00:00"} | {
        "known": "2024-03-03T00:00:00+00:00"
    }
    done = command(three_days, "show", "orders")
    assert done.exit_code == 0
    assert "[/b] ada" in done.output
    assert "id is less than 1" in done.output


def test_rows_of_some_time_are_shown_where_asked(three_days: Project) -> None:
    shown = as_json(three_days, "show", "orders", "--start", "2024-03-02", "--end", "2024-03-03")
    assert {row["interval"] for row in shown} == {"2024-03-02 00:00:00 to 2024-03-03 00:00:00"}
    assert as_json(three_days, "show", "orders", "--end", "2024-03-01") == []


def test_clearing_deletes_what_is_named_and_leaves_what_landed(three_days: Project) -> None:
    landed = sorted((three_days.root / "data").glob("**/*.parquet"))
    assert len(as_json(three_days, "clear", "orders", "--before", "2024-03-02")) == 1
    assert len(Quarantine(three_days.state).files("orders")) == 2
    assert len(as_json(three_days, "clear", "--all")) == 2
    assert Quarantine(three_days.state).files() == []
    assert sorted((three_days.root / "data").glob("**/*.parquet")) == landed
    (report,) = extract(three_days, start=START, end=START + 3 * DAY)
    assert (report.skipped, report.quarantined) == (3, 0)
    assert "No row is in quarantine" in command(three_days, "list").output
    assert "No row of 'orders'" in command(three_days, "show", "orders").output


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["clear"], InputError),
        (["clear", "orders", "--all"], InputError),
        (["clear", "order"], NotDefinedError),
        (["show", "order"], NotDefinedError),
        (["list", "order"], NotDefinedError),
    ],
)
def test_nothing_is_deleted_by_a_request_that_says_not_what(
    three_days: Project, words: list[str], error: type[Exception]
) -> None:
    assert isinstance(command(three_days, *words).exception, error)
    assert len(Quarantine(three_days.state).files()) == 3


def test_an_interval_of_which_nothing_landed_is_named(three_days: Project, extraction: Callable[[str], None]) -> None:
    assert "broken as a whole" not in command(three_days, "list").output
    extraction(BODY.replace("most_bad=0.5", "most_bad=0"))
    with pytest.raises(SourceError, match="break its contract"):
        extract(three_days, start=START + 3 * DAY, end=START + 4 * DAY)
    told = command(three_days, "list").output
    assert "orders 2024-03-04 00:00:00 to 2024-03-05 00:00:00: its contract was broken as a whole" in told
    assert told.count("broken as a whole") == 1


def test_what_a_stopped_run_left_goes_when_its_interval_has_landed_in_other_pieces(
    project: Project, extraction: Callable[[str], None]
) -> None:
    extraction(BODY.replace("most_bad=0.5", "most_bad=0"))
    with pytest.raises(SourceError, match="break its contract"):
        extract(project, start=START, end=START + DAY)
    extraction(BODY)
    extract(project, start=START, end=START + DAY / 2, every="12h")
    assert len(Quarantine(project.state).files()) == 2  # of the second half nothing has been judged anew
    extract(project, start=START, end=START + DAY, every="12h")
    assert [file.name for file in Quarantine(project.state).files()] == [
        "20240301T000000Z_20240301T120000Z.parquet",
        "20240301T120000Z_20240302T000000Z.parquet",
    ]
    assert Quarantine(project.state).reasons("orders") == [("id is less than 1", 2), ("who is null", 2)]


def test_rows_are_kept_as_long_as_the_project_says(three_days: Project) -> None:
    first, *_ = Quarantine(three_days.state).files()
    put_there = datetime(2026, 1, 1, tzinfo=UTC)
    for file in Quarantine(three_days.state).files():
        age = put_there - (timedelta(hours=1) if file == first else timedelta(0))
        os.utime(file, (age.timestamp(), age.timestamp()))
    extract(three_days, start=START, end=START + DAY, at=put_there + timedelta(days=365))
    assert len(Quarantine(three_days.state).files()) == 3  # for ever, where nothing is said
    (three_days.root / "feature_store.yaml").write_text("project: shop\ntidemill:\n  quarantine_keep: 90d\n")
    limited = open_project(three_days.root)
    extract(limited, start=START, end=START + DAY, at=put_there + timedelta(days=90))
    assert first not in Quarantine(three_days.state).files()
    assert len(Quarantine(three_days.state).files()) == 2
    extract(limited, start=START, end=START + DAY, at=put_there + timedelta(days=91))
    assert Quarantine(three_days.state).files() == []
    limited.close()


def test_a_time_to_keep_rows_that_is_none_is_refused_when_the_project_is_opened(project: Project) -> None:
    (project.root / "feature_store.yaml").write_text("project: shop\ntidemill:\n  quarantine_keep: 90 days\n")
    with pytest.raises(ConfigurationError, match=r"quarantine_keep: .*'90 days' is not a duration"):
        open_project(project.root)


def test_rows_from_before_and_after_a_change_of_the_contract_are_read_together(
    project: Project, extraction: Callable[[str], None]
) -> None:
    quarantine = Quarantine(project.state)
    for day, value in enumerate([START, START.replace(tzinfo=None), [1, 2]]):
        bad = pl.DataFrame({"id": [day], "x": [value], REASON: ["x is odd"]})
        quarantine.keep("orders", f"2024030{day + 1}T000000Z_2024030{day + 2}T000000Z.parquet", bad)
    read = quarantine.read("orders")
    assert read.get_column("x").to_list() == ["2024-03-01 00:00:00+00:00", "2024-03-01 00:00:00", "[1, 2]"]
    assert read.get_column("id").to_list() == [0, 1, 2]
    assert quarantine.reasons("orders") == [("x is odd", 3)]


def test_a_file_that_cannot_be_read_is_named(three_days: Project) -> None:
    first, *_ = Quarantine(three_days.state).files()
    first.write_bytes(b"no Parquet")
    with pytest.raises(SourceError, match=f"{first.name} in quarantine cannot be read"):
        Quarantine(three_days.state).faults()


@pytest.mark.parametrize("name", ["data/orders", "../orders", ".orders", "100%/orders"])
def test_a_source_that_is_called_as_a_path_keeps_its_bad_rows_where_all_are(
    project: Project, extraction: Callable[[str], None], name: str
) -> None:
    extraction(BODY.replace('"orders"', repr(name)))
    project.catalogs.add(_catalog(name, "data/orders"), at=START + DAY)
    extract(project, start=START, end=START + DAY)
    assert Quarantine(project.state).sources() == [name]
    assert Quarantine(project.state).reasons(name) == [("id is less than 1", 1), ("who is null", 1)]
    (file,) = Quarantine(project.state).files(name)
    assert file.parent.parent == project.state / "quarantine"
    assert [row["reason"] for row in as_json(project, "show", name)] == ["id is less than 1", "who is null"]


def test_bad_rows_of_a_source_that_is_called_as_its_folder_never_come_into_it(
    project: Project, extraction: Callable[[str], None], tmp_path: Path
) -> None:
    """Feast calls a source without a name as its path."""
    folder = str(tmp_path / "lake" / "orders")
    extraction(BODY.replace('"orders"', repr(folder)).replace("most_bad=0.5", "most_bad=0"))
    project.catalogs.add(_catalog(folder, folder), at=START + DAY)
    with pytest.raises(SourceError, match="break its contract"):
        extract(project, start=START, end=START + DAY)
    assert not (tmp_path / "lake").exists()
    assert Quarantine(project.state).sources() == [folder]


def _catalog(name: str, path: str) -> Catalog:
    source = Source(name=name, path=path, timestamp_field="at", known_field="known")
    return Catalog(project="shop", sources=(source,))
