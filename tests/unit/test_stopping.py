"""Being told to end: heard at whatever moment it is said, and never without effect."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from waiting import PATIENCE

from tidemill.cli.stopping import Stop

TOLD_TWICE = """
import os, signal
from tidemill.cli.stopping import stop_when_told
stop = stop_when_told()
os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait({patience})
print("told", flush=True)
os.kill(os.getpid(), signal.{again})
while True:
    signal.pause()
"""
SET_AT_EVERY_STEP = """
import sys
from tidemill.cli.stopping import Stop

def wait_and_set(stop, step):
    # Wait, while a handler runs that sets it, before that step of Python; False if the wait has fewer.
    taken = 0
    def trace(*_):
        nonlocal taken
        taken += 1
        if taken == step:
            sys.settrace(None)
            stop.set()
        return trace
    sys.settrace(trace)
    stop.wait(0.001)
    sys.settrace(None)
    return taken >= step

step = 1
while wait_and_set(stop := Stop(), step):
    assert stop.is_set() and stop.wait(1.0)
    step += 1
print(step - 1)
"""
HANGS = """
import threading
from tidemill.cli.stopping import end_within
def wait_for_a_disk():
    threading.Event().wait()
threading.Thread(target=wait_for_a_disk).start()
end_within(0.1)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_a_handler_may_set_it_at_any_step_of_a_wait() -> None:
    """In a process of one thread: early releases of Python 3.11 can hang while they trace one of several."""
    told = run(SET_AT_EVERY_STEP)
    assert (told.returncode, told.stderr) == (0, "")
    assert int(told.stdout) > 3


def test_all_who_wait_are_told_and_it_can_be_used_again() -> None:
    stop = Stop()
    waiting = [threading.Thread(target=stop.wait, daemon=True) for _ in range(3)]
    for thread in waiting:
        thread.start()
    stop.set()
    for thread in waiting:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in waiting)
    assert stop.wait(PATIENCE)
    stop.clear()
    assert not stop.wait(0.001)


def test_the_first_signal_asks_and_the_second_ends() -> None:
    terminated = run(TOLD_TWICE.format(patience=PATIENCE, again="SIGTERM"))
    interrupted = run(TOLD_TWICE.format(patience=PATIENCE, again="SIGINT"))
    assert terminated.stdout == interrupted.stdout == "told\n"
    assert terminated.returncode == -signal.SIGTERM
    assert "KeyboardInterrupt" in interrupted.stderr


def test_a_process_that_waits_for_ever_ends_and_says_where_it_was() -> None:
    ended = run(HANGS)
    assert ended.returncode == 1
    assert "had not ended 0.1 s later" in ended.stderr
    assert "in wait_for_a_disk" in ended.stderr
