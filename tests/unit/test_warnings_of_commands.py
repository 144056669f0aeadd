"""What the command line lets through of the warnings of others."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tidemill.cli.main import _without_those_of_feast


def test_what_feast_says_of_itself_and_will_say_later_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_of(monkeypatch, options=[]) == [(RuntimeWarning, "/home/me/features/views.py")]


def test_who_asks_python_for_warnings_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shown_of(monkeypatch, options=["default"])) == 3


def shown_of(monkeypatch: pytest.MonkeyPatch, *, options: list[str]) -> list[Any]:
    monkeypatch.setattr(sys, "warnoptions", options)
    shown: list[Any] = []
    show = _without_those_of_feast(lambda *given: shown.append(given[1:3]))
    show("experimental", RuntimeWarning, "/somewhere/feast/stream_feature_view.py", 135)
    show("divided by zero", RuntimeWarning, "/home/me/features/views.py", 3)
    show("will be mandatory", DeprecationWarning, "/home/me/features/views.py", 7, None, None)
    return shown
