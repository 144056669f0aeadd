"""Python processes that do something at the same moment. A fork of the tests' own process would hang where one of its
threads holds a lock just then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from waiting import PATIENCE, PATIENT, first_line_of


def together(script: str, each: Sequence[Sequence[str]]) -> list[str]:
    """Run a script once with each of these arguments; returns what it said each time.

    All of them wait at its `input("ready\\n")` until the last one is there.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | PATIENT,
        )
        for arguments in each
    ]
    try:
        for process in processes:
            assert first_line_of(process.stdout) == "ready\n", process.communicate(timeout=PATIENCE)[1]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * len(processes), [error for _, error in answers]
    return [said for said, _ in answers]
