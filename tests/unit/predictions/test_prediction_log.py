"""The prediction log keeps every answered prediction, whatever happens to the process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from waiting import wait_until

from tidemill.clock import to_micros
from tidemill.errors import UnavailableError
from tidemill.predictions import PredictionBatch, PredictionLog, PredictionRecord
from tidemill.predictions.segment import Segment

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
OpenLog = Callable[..., PredictionLog]


@pytest.fixture
def open_log() -> Iterator[OpenLog]:
    """Opens logs, as `PredictionLog` does, that are closed at the end of the test."""
    with ExitStack() as opened:
        yield lambda *where, **how: opened.enter_context(closing(PredictionLog(*where, **how)))


def record(
    number: int, *, at: datetime = NOON, model: str = "delay", features: str = '{"temp":1.5}'
) -> PredictionRecord:
    return PredictionRecord(
        prediction_id=f"p-{number}",
        model=model,
        version=3,
        service="delay_v1",
        catalog_digest="ab" * 32,
        at=to_micros(at),
        id=None if number % 2 else f"row-{number}",
        keys='{"origin":"JFK"}',
        request="{}",
        features=features,
        statuses='{"temp":"PRESENT"}',
        prediction=number / 10,
    )


def batch(
    *numbers: int, at: datetime = NOON, model: str = "delay", statuses: dict[str, list[str]] | None = None
) -> PredictionBatch:
    """The same rows as `record` makes, by column."""
    return PredictionBatch(
        model=model,
        version=3,
        service="delay_v1",
        catalog_digest="ab" * 32,
        at=to_micros(at),
        prediction_ids=[f"p-{number}" for number in numbers],
        ids=[None if number % 2 else f"row-{number}" for number in numbers],
        keys={"origin": ["JFK"] * len(numbers)},
        request={},
        features={"temp": [1.5] * len(numbers)},
        statuses=statuses,
        predictions=[number / 10 for number in numbers],
    )


def test_what_was_appended_is_scanned_back_with_its_columns_and_types(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append([record(0), record(1)])
    frame = log.scan()
    assert frame.columns == [
        "prediction_id", "model", "version", "service", "catalog_digest", "at", "id", "keys", "request", "features",
        "statuses", "prediction",
    ]  # fmt: skip
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["prediction_id"].to_list() == ["p-0", "p-1"]
    assert frame["id"].to_list() == ["row-0", None]
    assert frame["at"].to_list() == [NOON, NOON]
    assert frame["prediction"].to_list() == [0.0, 0.1]


def test_a_batch_is_scanned_back_as_the_records_of_its_rows(tmp_path: Path, open_log: OpenLog) -> None:
    by_row, by_column = open_log(tmp_path / "rows"), open_log(tmp_path / "columns")
    by_row.append([record(number) for number in range(5)])
    by_column.append_batch(batch(0, 1, 2))
    by_column.append_batch(batch(3, 4, statuses={"temp": ["PRESENT", "PRESENT"]}))
    assert by_column.scan().equals(by_row.scan())


def test_batches_and_records_lie_in_one_file_and_are_scanned_together(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append([record(0)])
    log.append_batch(batch(1, 2, at=NOON + timedelta(minutes=1)))
    log.append_batch(batch(7, model="other"))
    log.append([record(3, at=NOON + timedelta(minutes=2))])
    assert len(list(tmp_path.iterdir())) == 1
    assert log.scan("delay")["prediction_id"].to_list() == ["p-0", "p-1", "p-2", "p-3"]
    assert log.scan("delay", NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)).height == 2
    assert log.scan("other")["features"].to_list() == ['{"temp":1.5}']


def test_a_status_that_is_not_present_belongs_to_its_row(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append_batch(batch(0, 1, statuses={"temp": ["PRESENT", "NOT_FOUND"]}))
    assert log.scan()["statuses"].to_list() == ['{"temp":"PRESENT"}', '{"temp":"NOT_FOUND"}']


def test_a_batch_sent_again_under_its_names_counts_once_with_its_last_answer(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append_batch(batch(0, 1))
    log.append_batch(replace(batch(0, 1), predictions=[0.7, 0.8]))
    assert log.scan()["prediction"].to_list() == [0.7, 0.8]


def test_values_of_every_kind_come_back_from_a_batch_as_they_were_written(tmp_path: Path, open_log: OpenLog) -> None:
    features = {"n": [None, 9223372036854775807], "x": [0.1, "NaN"], "s": ['a"\\é\n', ""], "l": [[1, 2], []]}
    log = open_log(tmp_path)
    log.append_batch(replace(batch(0, 1), features=features, statuses={name: ["PRESENT"] * 2 for name in features}))
    rows = [json.loads(text) for text in log.scan()["features"].to_list()]
    assert rows == [{name: column[place] for name, column in features.items()} for place in range(2)]


@pytest.mark.parametrize("text", ['{"a":"b\\\\c\\"d\\u00e9\\n"}', '{"big":9223372036854775807}', '{"x":0.1,"n":null}'])
def test_nested_json_comes_back_byte_for_byte(tmp_path: Path, text: str, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append([record(0, features=text)])
    assert log.scan()["features"].to_list() == [text]


def test_a_scan_is_limited_to_a_model_and_an_interval_that_excludes_its_end(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    for hour in range(5):
        log.append([record(hour, at=NOON + timedelta(hours=hour))])
    log.append([record(99, model="other")])
    found = log.scan("delay", NOON + timedelta(hours=1), NOON + timedelta(hours=3))
    assert found["prediction_id"].to_list() == ["p-1", "p-2"]
    assert log.scan("nobody").is_empty()


def test_an_empty_log_scans_to_an_empty_frame_with_the_same_columns(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path / "never_written")
    assert log.scan().schema == open_log(tmp_path).scan().schema
    assert log.scan().is_empty()


def test_there_is_one_file_for_each_hour(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    for minutes in (0, 10, 59, 60, 61):
        log.append([record(minutes, at=NOON + timedelta(minutes=minutes))])
    assert sorted(file.name[:11] for file in tmp_path.iterdir()) == ["20131001T12", "20131001T13"]


def test_a_segment_that_has_grown_is_followed_by_another(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=500)
    for number in range(6):
        log.append([record(number)])
    assert len(list(tmp_path.iterdir())) > 1
    assert log.scan().height == 6


@pytest.mark.parametrize("torn", [b'{"prediction_id":"half', batch(2, 3).line()[:-10]])
def test_a_torn_last_line_is_skipped_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    log.append([record(0), record(1)])
    log.close()
    [segment] = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(torn)
    assert log.scan()["prediction_id"].to_list() == ["p-0", "p-1"]
    assert [line.bytes for line in log.torn_lines()] == [len(torn)]
    assert "torn" in caplog.text


def test_threads_append_side_by_side_without_mixing_lines(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, sync=True)

    def work(first: int) -> None:
        for number in range(first, first + 50):
            log.append([record(number)])

    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.scan()["prediction_id"].n_unique() == 400


def test_names_of_records_are_unique_over_logs_and_calls(tmp_path: Path, open_log: OpenLog) -> None:
    first, second = open_log(tmp_path), open_log(tmp_path)
    names = first.new_ids(100) + first.new_ids(100) + second.new_ids(100)
    assert len(set(names)) == 300


_ENDLESS_WRITER = """
import sys
from pathlib import Path
from tidemill.predictions import PredictionBatch, PredictionLog, PredictionRecord
log = PredictionLog(Path(sys.argv[1]))
number = 0
while True:
    log.append([PredictionRecord(prediction_id=str(number), model="m", version=1, service="s", catalog_digest="d",
        at=1_380_628_800_000_000, id=None, keys="{}", request="{}", features="{}", statuses="{}", prediction=0.5)])
    print(number, flush=True)
    number += 1
"""


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, open_log: OpenLog) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    writer.wait()
    writer.stdout.close()
    kept = set(open_log(tmp_path).scan()["prediction_id"].cast(pl.Int64).to_list())
    assert set(acknowledged) <= kept


def test_a_full_disk_is_a_clear_error_and_writing_goes_on_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    log.append([record(0)])

    def half_then_full(self: Segment, lines: bytes) -> None:
        os.write(self._descriptor, lines[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "write", half_then_full)
        with pytest.raises(UnavailableError, match="No space left"):
            log.append([record(1)])
    log.append([record(2)])
    assert log.scan()["prediction_id"].to_list() == ["p-0", "p-2"]


def test_compaction_keeps_every_record_and_may_be_repeated(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    for hour in range(4):
        log.append([record(hour, at=NOON + timedelta(hours=hour))])
    log.append_batch(batch(8, 9))
    before = log.scan()
    written = log.compact(before=NOON + timedelta(hours=2))
    assert len(written) == 2
    assert log.compact(before=NOON + timedelta(hours=2)) == []
    assert log.scan().equals(before)


def test_whoever_listed_the_files_before_they_were_compacted_reads_the_same(
    tmp_path: Path, monkeypatch, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    log.append([record(0)])
    log.close()
    listed = list(log._files(None, None))
    before = log.scan()
    others = open_log(tmp_path)
    others.compact(before=NOON + timedelta(days=1))
    monkeypatch.setattr(log, "_files", lambda _start, _end: listed)
    assert log.scan().equals(before)
    assert log.torn_lines() == []
    assert log.compact(before=NOON + timedelta(days=1)) == []
    assert others.scan().equals(before)
    assert [file.suffix for file in tmp_path.iterdir()] == [".parquet"]


def test_a_disk_that_refuses_a_compaction_keeps_the_lines(tmp_path: Path, monkeypatch, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.append([record(0)])
    log.close()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(UnavailableError, match="No record is lost"):
            log.compact(before=NOON + timedelta(days=1))
    assert [file.suffix for file in tmp_path.iterdir()] == [".jsonl"]
    assert log.scan().height == 1


def compact_and_bring_back(log: PredictionLog, folder: Path) -> Path:
    """What a compaction leaves that is killed before it removes the lines of one record; returns their file."""
    log.append([record(0)])
    log.close()
    [segment] = folder.iterdir()
    content = segment.read_bytes()
    log.compact(before=NOON + timedelta(days=1))
    segment.write_bytes(content)
    return segment


def test_a_compaction_killed_before_removing_the_lines_counts_nothing_twice(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    compact_and_bring_back(log, tmp_path)
    assert log.scan().height == 1


def test_the_next_compaction_removes_what_one_that_was_killed_left_behind(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    segment = compact_and_bring_back(log, tmp_path)
    segment.with_suffix(".0a1b.tmp").write_bytes(b"PAR1")
    log.compact(before=NOON + timedelta(days=1))
    assert [file.suffix for file in tmp_path.iterdir()] == [".parquet"]
    assert log.scan().height == 1


def test_a_segment_that_is_compacted_while_the_folder_is_listed_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    log.append([record(0)])
    log.close()
    plain = Path.iterdir

    def compacted_meanwhile(folder: Path) -> list[Path]:
        """Past where the new name stands before it is there, and at the old one when it is gone."""
        monkeypatch.setattr(Path, "iterdir", plain)
        open_log(tmp_path).compact(before=NOON + timedelta(days=1))
        return []

    monkeypatch.setattr(Path, "iterdir", compacted_meanwhile)
    assert log.scan().height == 1


def test_a_damaged_line_is_skipped_and_reported_and_keeps_no_other_segment_from_compaction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    for hour in range(2):
        log.append([record(hour, at=NOON + timedelta(hours=hour))])
    log.append_batch(batch(8, 9, at=NOON + timedelta(hours=1)))
    log.close()
    damaged = min(tmp_path.iterdir())
    damaged.write_bytes(bytes(64) + b"\n" + b'{"rows":2}\n' + b'{"prediction_id": \n' + damaged.read_bytes())
    assert log.scan()["prediction_id"].to_list() == ["p-0", "p-1", "p-8", "p-9"]
    assert f"{damaged} is damaged" in caplog.text
    assert len(log.compact(before=NOON + timedelta(days=1))) == 1
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".jsonl", ".parquet"]
    assert log.scan()["prediction_id"].to_list() == ["p-0", "p-1", "p-8", "p-9"]


def test_what_was_written_beside_a_record_that_the_disk_refused_is_not_taken_for_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_log: OpenLog
) -> None:
    log = open_log(tmp_path, sync=True)

    def refuse(_descriptor: int) -> None:
        monkeypatch.undo()
        beside.start()
        wait_until(lambda: log._written == 2)
        raise OSError(errno.EIO, "Input/output error")

    refused: list[str] = []

    def append() -> None:
        try:
            log.append([record(1)])
        except UnavailableError as error:
            refused.append(str(error))

    beside = threading.Thread(target=append)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UnavailableError, match="cannot be written"):
        log.append([record(0)])
    beside.join()
    assert len(refused) == 1
    log.append([record(2)])
    log.close()
