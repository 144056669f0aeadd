"""Rows of which each has fields of its own are refused before their number has grown with its square."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from small_project import served

from tidemill.definitions.types import ValueType
from tidemill.project import Project
from tidemill_serving.frames import columns_of_frame, columns_of_rows
from tidemill_serving.problems import RejectedRowsError
from tidemill_serving.rows import RowField, RowSchema

MOST = 1_000
PUSHED = {"origin": "JFK", "route": 1, "temp": 1.0, "time": "2013-10-01T11:00:00Z"}


def test_rows_may_differ_in_so_many_fields_and_no_more() -> None:
    rows = [{f"field{number}": number} for number in range(MOST)]
    assert len(columns_of_rows(rows, limit=2 * MOST)) == MOST
    with pytest.raises(RejectedRowsError, match="more than 1,000 different fields"):
        columns_of_rows([*rows, {"one more": 1}], limit=2 * MOST)
    with pytest.raises(RejectedRowsError, match="more than 1,000 different fields"):
        columns_of_frame({f"field{number}": [1] for number in range(MOST + 1)}, limit=10)


@pytest.mark.parametrize("path", ["/v1/push/weather_now", "/push"])
def test_a_push_of_rows_that_are_too_wide_is_422(project: Project, path: str) -> None:
    wide = {f"field{number}": 1 for number in range(MOST)}
    rows = [PUSHED | wide] * 100
    frame = {name: [value] for name, value in (PUSHED | wide).items()}
    body = {"push_source_name": "weather_now", "df": frame} if path == "/push" else {"rows": rows, "to": "offline"}
    with served(project) as client:
        refused = client.post(path, json=body)
    assert refused.status_code == 422
    assert "different fields" in refused.json()["detail"]


def test_only_faults_that_are_shown_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find what was meant by an unknown field takes longer than all the rest."""
    looked: list[str] = []

    def look(name: str, *known: Any, **options: Any) -> list[str]:
        looked.append(name)
        return find(name, *known, **options)

    find = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", look)
    schema = RowSchema(fields=(RowField(name="origin", dtype=ValueType.STRING, is_key=True),))
    with pytest.raises(RejectedRowsError, match="and 499 more faults") as refused:
        schema.check([{"origin": "JFK", f"origin{number}": 1} for number in range(500)], limit=1_000)
    assert len(looked) == len(refused.value.faults) == 20
    assert {fault.expected for fault in refused.value.faults} == {"did you mean 'origin'?"}
