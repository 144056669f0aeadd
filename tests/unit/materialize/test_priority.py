from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import open_project

GIVES_WAY = """
import os, sys, threading
from pathlib import Path
from tidemill.materialize.priority import give_way
from tidemill.project import open_project

over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
give_way(open_project(Path(sys.argv[1])))
found = sorted({os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")})
over.set()
print(found)
"""


def test_a_process_that_loads_goes_after_those_that_read_and_the_redis_it_starts_does_not(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: airports\n")
    server = EmbeddedRedis(open_project(tmp_path).redis_folder)
    try:
        done = subprocess.run(
            [sys.executable, "-c", GIVES_WAY, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == f"[{max(10, os.getpriority(os.PRIO_PROCESS, 0))}]"
        assert server.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, server.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        server.stop()


TURNS = GIVES_WAY.replace(
    "print(found)",
    """
import ctypes, platform, struct
attributes = ctypes.create_string_buffer(48)
number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
print(struct.unpack("=IIQiIQQQ", attributes)[5])
""",
)


def takes_a_length_of_turns() -> bool:
    """Linux does since 6.12."""
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())
    return platform.system() == "Linux" and release >= (6, 12) and platform.machine() in ("x86_64", "aarch64")


@pytest.mark.skipif(not takes_a_length_of_turns(), reason="this system gives every process turns of one length")
def test_a_process_that_loads_takes_the_shortest_turns(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: airports\ntidemill:\n  redis_url: unix:///nowhere\n")
    done = subprocess.run([sys.executable, "-c", TURNS, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "100000"


def test_the_command_gives_way_and_a_program_that_calls_it_keeps_its_priority(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: airports\ntidemill:\n  redis_url: unix:///nowhere\n")
    own, called = (
        subprocess.run(
            [sys.executable, "-c", how, "materialize", "--project", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()[-1]
        for how in (COMMAND, CALLED)
    )
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert (own, called) == (str(max(10, here)), str(here))


COMMAND = """
import os
from tidemill.cli.main import main
try:
    main()
finally:
    print(os.getpriority(os.PRIO_PROCESS, 0))
"""
CALLED = COMMAND.replace("import main", "import app as main")
