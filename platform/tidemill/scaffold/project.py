"""Making a project for a user's own table, or for a small table made up here where none is given."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from tidemill.errors import ConfigurationError
from tidemill.scaffold.guess import TableShape, guess_shape, identifier
from tidemill.scaffold.table import day_first, read_table, with_instants, with_texts_read
from tidemill.scaffold.templates import project_files


@dataclass(frozen=True, kw_only=True)
class MadeProject:
    """What `create_project` wrote, and what it took for what.

    `features` are (column, Feast type) pairs. `first` and `last` are the table's event times in UTC, None where all are
    null; `day_first` is one of them as its file has it, where another reader would take its day for the month.
    `left_out` names columns that no feature can be made of; `commands` are what to try next, quoted for a shell.
    """

    folder: str
    name: str
    view: str
    service: str
    entity: str
    features: tuple[tuple[str, str], ...]
    key: str
    time: str
    first: datetime | None
    last: datetime | None
    day_first: str | None
    left_out: tuple[str, ...]
    commands: tuple[str, ...]


def create_project(
    folder: Path, *, data: Path | None = None, key: str | None = None, time: str | None = None
) -> MadeProject:
    """Write a project into `folder` that runs as it stands, around the table in `data` (Parquet or CSV).

    `key` and `time` name the entity's key and the event time; where they are None they are guessed from types and
    names. The folder appears whole or not at all.

    Raises ConfigurationError if the folder holds anything already, InputError where the table cannot be read or what is
    its key or time is not plain.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty.", hint="Name a new folder; nothing was written.")
    table = _example_table() if data is None else with_texts_read(read_table(data))
    shape = guess_shape(table, name="rides" if data is None else identifier(data.stem), key=key, time=time)
    table = with_instants(table, [shape.time, *([shape.known] if shape.known else [])])
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_draft(draft, identifier(folder.resolve().name), shape, table)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return _describe(folder, shape, table, day_first=None if data is None else day_first(data, shape.time))


def _write_draft(draft: Path, name: str, shape: TableShape, table: pl.DataFrame) -> None:
    draft.chmod(0o755)
    for path, text in project_files(name, shape).items():
        file = draft / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    target = draft / "data" / shape.name / "history.parquet"
    target.parent.mkdir(parents=True)
    table.sort(shape.time).write_parquet(target)


def _describe(folder: Path, shape: TableShape, table: pl.DataFrame, *, day_first: str | None) -> MadeProject:
    keys = table.get_column(shape.key).drop_nulls()
    first, last = table.select(pl.col(shape.time).min().alias("first"), pl.col(shape.time).max().alias("last")).row(0)
    example = shlex.quote(f"{shape.key}={keys[-1] if len(keys) else 1}")
    return MadeProject(
        folder=str(folder),
        name=identifier(folder.resolve().name),
        view=shape.view,
        service=shape.service,
        entity=shape.entity,
        features=shape.features,
        key=shape.key,
        time=shape.time,
        first=first,
        last=last,
        day_first=day_first,
        left_out=shape.left_out,
        commands=(
            f"cd {shlex.quote(str(folder))}",
            "tidemill apply",
            "tidemill materialize",
            f"tidemill features get {shape.service} --entity {example}",
        ),
    )


def _example_table() -> pl.DataFrame:
    """Two days of hourly statistics of five taxis, made up by arithmetic, so that a new user has something to read."""
    hours = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 2, 23), "1h", time_zone="UTC", eager=True)
    rows = [
        {"taxi": taxi, "hour": hour, "trips": (taxi * 7 + place * 3) % 11, "mean_fare": 8.0 + (taxi * place % 13) / 2}
        for place, hour in enumerate(hours)
        for taxi in range(1, 6)
    ]
    return pl.DataFrame(rows)
