"""Making a project for a user's own table, or for a small table made up here where none is given."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tidemill.errors import ConfigurationError, InputError
from tidemill.scaffold.guess import TableShape, guess_shape
from tidemill.scaffold.templates import project_files

_READERS = {".parquet": pl.read_parquet, ".csv": lambda file: pl.read_csv(file, try_parse_dates=True)}


@dataclass(frozen=True, kw_only=True)
class MadeProject:
    """What `create_project` wrote."""

    folder: str
    name: str
    view: str
    service: str
    entity: str
    features: tuple[str, ...]
    read_command: str


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
    table = _example_table() if data is None else _read_table(data)
    shape = guess_shape(table, name="rides" if data is None else _identifier(data.stem), key=key, time=time)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_draft(draft, _identifier(folder.resolve().name), shape, table)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return _describe(folder, shape, table)


def _write_draft(draft: Path, name: str, shape: TableShape, table: pl.DataFrame) -> None:
    draft.chmod(0o755)
    for path, text in project_files(name, shape).items():
        file = draft / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    target = draft / "data" / shape.name / "history.parquet"
    target.parent.mkdir(parents=True)
    _with_utc_time(table, shape).sort(shape.time).write_parquet(target)


def _describe(folder: Path, shape: TableShape, table: pl.DataFrame) -> MadeProject:
    example = table.get_column(shape.key).drop_nulls()
    return MadeProject(
        folder=str(folder),
        name=_identifier(folder.resolve().name),
        view=shape.view,
        service=shape.service,
        entity=shape.entity,
        features=tuple(name for name, _ in shape.features),
        read_command=f"tidemill features get {shape.service} --entity {shape.key}={example[-1] if len(example) else 1}",
    )


def _read_table(file: Path) -> pl.DataFrame:
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file} is neither Parquet nor CSV.", hint=f"Known endings: {', '.join(_READERS)}.")
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    try:
        table = reader(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if table.is_empty():
        raise InputError(f"{file} holds no rows.", hint="A project starts from at least one row.")
    return table


def _with_utc_time(table: pl.DataFrame, shape: TableShape) -> pl.DataFrame:
    column = pl.col(shape.time)
    dtype = table.schema[shape.time]
    if dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return table.with_columns(column.dt.convert_time_zone("UTC"))
    return table.with_columns(column.dt.replace_time_zone("UTC"))


def _example_table() -> pl.DataFrame:
    """Two days of hourly statistics of five taxis, made up by arithmetic, so that a new user has something to read."""
    hours = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 2, 23), "1h", time_zone="UTC", eager=True)
    rows = [
        {"taxi": taxi, "hour": hour, "trips": (taxi * 7 + place * 3) % 11, "mean_fare": 8.0 + (taxi * place % 13) / 2}
        for place, hour in enumerate(hours)
        for taxi in range(1, 6)
    ]
    return pl.DataFrame(rows)


def _identifier(text: str) -> str:
    """A name usable in Python and in Feast."""
    name = re.sub(r"\W+", "_", text.lower()).strip("_")
    return name if name and not name[0].isdigit() else f"p_{name}"
