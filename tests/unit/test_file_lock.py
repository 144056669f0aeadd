"""A lock file: one holder at a time, and nobody waits for ever for one who stands still."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import PATIENCE, first_line_of

from tidemill.errors import UnavailableError
from tidemill.file_lock import held_alone

HOLDER = """
import sys
from pathlib import Path
from tidemill.file_lock import held_alone
with held_alone(Path(sys.argv[1]), doing="applying", patience=0):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_whoever_comes_second_waits_for_the_first(tmp_path: Path) -> None:
    def second() -> str:
        with held_alone(tmp_path / "lock", doing="applying", patience=PATIENCE):
            return first

    with ThreadPoolExecutor(1) as thread:
        with held_alone(tmp_path / "lock", doing="applying", patience=0):
            first = "at work"
            waiting = thread.submit(second)
            first = "done"
        assert waiting.result(PATIENCE) == "done"


def test_a_holder_that_stands_still_is_named_and_waited_for_no_longer(tmp_path: Path) -> None:
    lock = tmp_path / "made" / "lock"
    with (
        held_alone(lock, doing="applying", patience=0),
        pytest.raises(UnavailableError, match=f"process is applying.*0.05 s.*fuser {lock}"),
        held_alone(lock, doing="applying", patience=0.05),
    ):
        pytest.fail("two held it")


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert first_line_of(holder.stdout) == "held\n"
        with pytest.raises(UnavailableError), held_alone(tmp_path / "lock", doing="applying", patience=0):
            pytest.fail("two held it")
        holder.kill()
    with held_alone(tmp_path / "lock", doing="applying", patience=PATIENCE):
        assert (tmp_path / "lock").exists()
