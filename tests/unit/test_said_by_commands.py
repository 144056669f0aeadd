"""What commands say to people: names of their data as they are, and what can be typed again."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tidemill.cli.doctor import Finding, show
from tidemill.cli.main import app
from tidemill.cli.output import Output
from tidemill.definitions.catalog import Catalog, Source
from tidemill.errors import InputError
from tidemill.feast.apply import ApplyResult
from tidemill.online.push import find_stream


@pytest.mark.parametrize("text", ["Duration [min]", "[/etc/hosts]", "[bold]", "a\\[b]"])
def test_brackets_of_users_data_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], text: str) -> None:
    Output().say(f"Without a value: {text}.")
    assert capsys.readouterr().out == f"Without a value: {text}.\n"


def test_marks_are_read_only_where_they_are_meant(capsys: pytest.CaptureFixture[str]) -> None:
    Output().say("[bold]It serves[/bold]", marked=True)
    assert capsys.readouterr().out == "It serves\n"


def test_the_title_of_a_narrow_table_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    title = "rides@1 on 720 test rows from 2024-02-20 on"
    Output().table(title, ("metric", "value"), [("auc", 0.9)])
    assert capsys.readouterr().out.splitlines()[0] == title


def test_init_names_what_it_took_for_what_in_commands_that_can_be_typed(tmp_path: Path) -> None:
    table = {"Dock [no]": ["a", "b"], "At": ["2024-03-01 10:00", "2024-03-02 11:30"], "Temp [C]": [3.5, 4.0]}
    odd = pl.DataFrame(table).with_columns(pl.col("At").str.to_datetime("%Y-%m-%d %H:%M"), path=pl.lit([1]))
    odd.write_parquet(tmp_path / "docks.parquet")
    folder = tmp_path / "my project"

    said = CliRunner().invoke(app, ["init", str(folder), "--data", str(tmp_path / "docks.parquet")])

    assert said.exit_code == 0
    assert "has the features: Temp [C] (Float64)." in said.output
    assert "key is 'Dock [no]', its event time 'At', from 2024-03-01 10:00 to 2024-03-02 11:30 UTC." in said.output
    assert "no feature can hold their type: path." in said.output
    commands = [shlex.split(line) for line in said.output.splitlines() if line.startswith("  ")]
    assert commands[0] == ["cd", str(folder)]
    assert commands[-1][-1] == "Dock [no]=b"


@pytest.mark.parametrize(
    ("text", "told"), [("03/04/2024 10:00", True), ("03.04.2024 10:00", False), ("2024-04-03", False)]
)
def test_init_says_where_it_read_the_day_of_a_date_first(tmp_path: Path, text: str, told: bool) -> None:
    (tmp_path / "t.csv").write_text(f"id;At;x\n1;{text};3\n")
    said = CliRunner().invoke(app, ["init", str(tmp_path / "made"), "--data", str(tmp_path / "t.csv")])
    assert "from 2024-04-03" in said.output
    assert (f"Dates such as {text} were read with the day first" in said.output) == told


def test_doctor_gives_each_advice_once(capsys: pytest.CaptureFixture[str]) -> None:
    same = [Finding(part=part, ok=False, found="-", advice="Run `tidemill apply` first.") for part in ("a", "b")]
    show([*same, Finding(part="c", ok=True, found="-")], Output())
    assert capsys.readouterr().err == "a, b: Run `tidemill apply` first.\n"


def test_an_apply_that_changes_nothing_says_so() -> None:
    (line,) = ApplyResult(version=3, digest="0123456789abcdef", changes=()).lines
    assert line == "Nothing has changed. Version 3 of the definitions is in force (0123456789ab)."


def test_who_pushes_to_a_source_of_files_is_told_what_to_declare() -> None:
    catalog = Catalog(project="shop", sources=(Source(name="orders", path="orders", timestamp_field="at"),))
    with pytest.raises(InputError, match=r"'orders' is of files only.*PushSource\(name=..., batch_source=orders\)"):
        find_stream(catalog, "orders")
