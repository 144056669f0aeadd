"""What the command line lets through of the warnings of others."""

from __future__ import annotations

from typing import Any

from tidemill.cli.main import _without_those_of_feast


def test_feast_may_not_warn_that_it_is_young_and_everybody_else_may_warn() -> None:
    shown: list[Any] = []
    show = _without_those_of_feast(lambda *given: shown.append(given[:3]))
    young = RuntimeWarning("experimental")
    show(young, RuntimeWarning, "/somewhere/feast/stream_feature_view.py", 135)
    show(young, RuntimeWarning, "/home/me/features/views.py", 3)
    show(young, DeprecationWarning, "/somewhere/feast/types.py", 7, None, None)
    assert [(category, filename) for _, category, filename in shown] == [
        (RuntimeWarning, "/home/me/features/views.py"),
        (DeprecationWarning, "/somewhere/feast/types.py"),
    ]
