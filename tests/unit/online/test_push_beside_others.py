"""What was pushed lies beside others: rebuilds, deletions, projects named alike, values that somebody else wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from push_parts import NOW, OpenProject, delays, departure, window

from tidemill.clock import to_micros
from tidemill.errors import ConflictError
from tidemill.online.push import push
from tidemill.online.tile_layout import rebuild_lock
from tidemill.online.tile_log import TileLog
from tidemill.online.tile_rebuild import delete_all_tiles, delete_tiles, rebuild_stream, rebuild_tiles
from tidemill.online.tiles import TilePlan


def test_a_push_waits_for_a_rebuild_to_end(project: Any) -> None:
    project.online.resp.call("SET", rebuild_lock("flights", "origin_delays"), "somebody", "EX", 60)
    with pytest.raises(ConflictError, match="are being rebuilt"):
        push(project, "departed", [departure(1)], at=NOW)
    with pytest.raises(ConflictError, match="being rebuilt already"):
        rebuild_tiles(project.online, "origin_delays", offline=project.offline, at=NOW)
    project.online.resp.call("DEL", rebuild_lock("flights", "origin_delays"))
    push(project, "departed", [departure(1)], at=NOW)
    assert window(project) == (1, 1)


def test_rebuilding_from_history_equals_having_streamed_byte_for_byte(project: Any, tmp_path: Path) -> None:
    events = [departure(number, minutes=number) for number in range(70, 0, -1)]
    for start in range(0, 70, 7):
        at = NOW - timedelta(minutes=63 - start)
        push(project, "departed", events[start : start + 7], to="both", at=at)
    keys = project.online.resp.call("KEYS", "tm:{flights}:w:*")
    log = TileLog.of(project.catalog.view("origin_delays"))
    streamed = log.split(project.online.resp.call("GET", keys[0]))
    result = rebuild_stream(project.online, "departed", offline=project.offline, at=NOW)
    rebuilt = log.split(project.online.resp.call("GET", keys[0]))
    assert result.events == 60
    assert len(rebuilt[0]) > 10 * log.layouts[0].record_bytes
    assert [one[-len(other) :] for one, other in zip(streamed, rebuilt, strict=True)] == rebuilt
    assert push(project, "departed", events[-60:], at=NOW).accepted == 0


def test_a_project_never_touches_another_whose_name_ends_alike(project_at: OpenProject, tmp_path: Path) -> None:
    prod, mine = (project_at(name=name, root=tmp_path / name) for name in ("prod", "my_prod"))
    for project in (prod, mine):
        push(project, "departed", [departure(1)], at=NOW)
    assert delete_all_tiles(prod.online) == 3  # a tile, and where its event's id is remembered
    assert window(prod) == (0, None)
    assert window(mine) == (1, 1)


def test_deleting_a_view_leaves_the_others(project_at: OpenProject) -> None:
    project = project_at(delays(), delays("origin_delays_2"))
    push(project, "departed", [departure(1)], at=NOW)
    assert delete_tiles(project.online, "origin_delays") == 1
    assert window(project) == (0, None)
    assert window(project, "origin_delays_2") == (1, 1)


def test_a_value_that_is_no_tile_is_read_as_not_found_and_replaced_by_the_next_push(project: Any) -> None:
    push(project, "departed", [departure(1)], at=NOW)
    key = project.online.resp.call("KEYS", "tm:{flights}:w:*")[0]
    project.online.resp.call("SET", key, "nonsense")
    plan = TilePlan("flights", [(project.catalog.view("origin_delays"), ["delay_1h"])])
    columns = plan.decode([[b"nonsense"]], to_micros(NOW))[0]
    assert (columns.values["delay_1h"], columns.found, columns.broken) == ([None], [False], 1)
    push(project, "departed", [departure(2)], at=NOW)
    assert window(project) == (1, 2)


@pytest.mark.parametrize("many", [1, 40])
def test_a_key_that_is_somebody_else_s_stops_a_push_before_any_of_its_events_counts_as_seen(
    project_at: OpenProject, many: int
) -> None:
    project = project_at(delays(), delays("origin_delays_2"))
    push(project, "departed", [departure(0)], at=NOW)
    key = project.online.resp.call("KEYS", "tm:{flights}:w:origin_delays_2:*")[0]
    project.online.resp.pipeline([("DEL", key), ("SADD", key, "theirs")])
    events = [departure(number) for number in range(1, 1 + many)]
    for _ in range(2):
        with pytest.raises(ConflictError, match="something of another kind"):
            push(project, "departed", events, at=NOW)
    assert window(project) == (1, 0)
    assert project.online.resp.call("SMEMBERS", key) == [b"theirs"]
    project.online.resp.call("DEL", key)
    assert push(project, "departed", events, at=NOW).duplicates == 0
    assert window(project) == (1 + many, sum(range(1 + many)))
    assert window(project, "origin_delays_2") == (many, sum(range(1 + many)))
