"""Parts are read each by itself: trouble with one is told, a defect is not hidden, and answers are remembered."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tidemill.errors import ConflictError, UnavailableError
from tidemill_serving.dashboard import deployment
from tidemill_serving.dashboard.deployment import DeploymentError, promote
from tidemill_serving.dashboard.reading import Memory, Trouble, attempt


def test_what_goes_wrong_on_purpose_is_told_and_a_defect_is_raised():
    def gone() -> None:
        raise UnavailableError("Redis does not answer.", hint="Start it.")

    assert attempt(gone) == Trouble(text="Redis does not answer. Start it.")
    assert attempt(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 / 0)


def test_an_answer_is_remembered_by_its_key_and_forgotten_in_time():
    asked: list[str] = []
    memory: Memory[int] = Memory(60)
    for key in ("a", "a", "b"):
        memory.recall(key, lambda key=key: len(asked.append(key) or asked))
    assert asked == ["a", "b"]
    forgetful: Memory[int] = Memory(0)
    for _ in range(2):
        forgetful.recall("c", lambda: len(asked.append("c") or asked))
    assert asked == ["a", "b", "c", "c"]


def test_an_answer_that_failed_is_not_remembered():
    memory: Memory[int] = Memory(60)
    with pytest.raises(ZeroDivisionError):
        memory.recall("a", lambda: 1 // 0)
    assert memory.recall("a", lambda: 2) == 2


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ('print(\'{"message": "No such version.", "hint": "Train."}\'); sys.exit(2)', "No such version. Train."),
        ("sys.stderr.write('first\\nlast line\\n'); sys.exit(1)", "last line"),
        ("sys.exit(1)", "The command failed and said nothing."),
    ],
)
def test_what_the_command_said_is_what_people_read(tmp_path, monkeypatch, command, told):
    monkeypatch.setattr(deployment, "_COMMAND_LINE", f"import sys; {command}")
    with pytest.raises(DeploymentError, match=told):
        promote(tmp_path, "late", 1)


def test_a_command_that_does_not_end_is_not_waited_for_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "_COMMAND_LINE", "import time; time.sleep(60)")
    monkeypatch.setattr(deployment, "_PATIENCE", 0.2)
    with pytest.raises(ConflictError, match="has not ended"):
        promote(tmp_path, "late", 1)


def test_a_project_that_is_none_says_so(tmp_path):
    with pytest.raises(DeploymentError, match=r"feature_store\.yaml"):
        promote(tmp_path, "late", 1)


def test_nothing_but_the_dashboard_needs_its_library():
    script = textwrap.dedent("""
        import sys
        import tidemill_serving.app
        import tidemill_serving.dashboard
        assert not any(name.split(".")[0] == "nicegui" for name in sys.modules)
    """)
    import subprocess

    subprocess.run([sys.executable, "-c", script], check=True)
