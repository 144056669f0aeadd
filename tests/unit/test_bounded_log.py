"""The log of a process that was started by `tidemill up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE

from tidemill.cli.bounded_log import LOG

TALKS = """
import os, sys, time
from pathlib import Path
from tidemill.cli import bounded_log
bounded_log.LARGEST, bounded_log._LOOK_AGAIN = 2_000, 0.001
log = Path(os.environ[bounded_log.LOG])
bounded_log.keep_log_bounded()
number, end = 0, time.monotonic() + {patience}
while not log.with_name("api.log.1").exists() and time.monotonic() < end:
    print(number, flush=True)
    os.write(2, b"%d\\n" % (number + 1))
    number += 2
while (not log.exists() or os.fstat(2).st_ino != log.stat().st_ino) and time.monotonic() < end:
    time.sleep(0.001)
print("the end, by", os.environ.get(bounded_log.LOG), file=sys.stderr)
"""


def test_a_log_that_grows_too_large_is_begun_anew_and_loses_nothing_at_that(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab") as sink:
        command = [sys.executable, "-c", TALKS.format(patience=PATIENCE)]
        done = subprocess.run(
            command, stdout=sink, stderr=sink, env=os.environ | {LOG: str(log)}, check=False, timeout=2 * PATIENCE
        )
    before, after = (tmp_path / "api.log.1").read_text().splitlines(), log.read_text().splitlines()
    assert done.returncode == 0, after
    assert len("\n".join(before)) > 2_000
    assert after.pop() == "the end, by None"
    assert [*before, *after] == [str(number) for number in range(len(before) + len(after))]
