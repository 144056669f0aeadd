"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One thread for each numerical library: two test processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Feast reports usage to its makers unless told not to.
os.environ.setdefault("FEAST_USAGE", "False")
# Where tests import Feast before anything of ours, it would have all metrics of the process kept in shared files.
import prometheus_client  # noqa: F401
import pytest
from hypothesis import HealthCheck, Phase, settings
from postgres_server import PostgresServer, find_binaries, running
from waiting import PATIENCE

from tidemill.settings import Settings

# Settings of this machine are none of the tests'.
for name in [name for name in os.environ if name.startswith("TIDEMILL_")]:
    del os.environ[name]

# Explaining a failure traces every line of every example. Early releases of Python 3.11 can hang while they trace a
# process of several threads (a thread that asks for the interpreter just as it is given up leaves its request behind).
# How fast examples are made says nothing of what is tested, and on a busy machine they are made slowly.
settings.register_profile(
    "tidemill",
    phases=[phase for phase in Phase if phase is not Phase.explain],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# A build tries the same examples every time, so that it fails for what was changed and nothing else. People try others
# each time, and find what nobody thought of.
settings.register_profile("build", settings.get_profile("tidemill"), derandomize=True, database=None)
settings.load_profile("build" if os.environ.get("CI") else "tidemill")


# A machine whose processors or disks are busy keeps Redis from answering for seconds. Tests of patience set their own.
for name, seconds in (("redis_timeout", 60.0), ("request_timeout", 120.0)):
    Settings.model_fields[name].default = seconds
Settings.model_rebuild(force=True)


@pytest.fixture(scope="module", autouse=True)
def users_code() -> Iterator[None]:
    """A process imports the code of one project, once. Tests have many projects, and some keep a year of flights."""
    yield
    imported = [name for name in sys.modules if name.startswith("_tidemill_user_")]
    for name in imported:
        del sys.modules[name]
    if imported:
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def process_as_it_was() -> Iterator[None]:
    """The tests of a file leave the process as they found it: which ones come after them in it is chance."""
    environment, threads, before = dict(os.environ), set(threading.enumerate()), _of_the_process()
    yield
    for thread in set(threading.enumerate()) - threads:
        if thread.name == "tqdm_monitor":  # watches Feast's progress bars from the first one on, and does nothing else
            continue
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} was left running"
    assert _of_the_process() == before
    changed = {name for name in environment | dict(os.environ) if os.environ.get(name) != environment.get(name)}
    imports = {name for name in changed - set(environment) if not name.startswith(("TIDEMILL_", "TZ"))}
    assert changed - imports - {"PYTEST_CURRENT_TEST"} == set(), "the environment was changed"


def _of_the_process() -> dict[str, Any]:
    """What threads share and libraries leave alone when they are imported."""
    limits = {name: getattr(resource, name) for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE")}
    return {
        "working directory": Path.cwd(),
        "time zone": time.tzname,
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "limits": {name: resource.getrlimit(number) for name, number in limits.items()},
        "where modules are found": list(sys.path),
        "compiled files are written": not sys.dont_write_bytecode,
        "garbage is collected": gc.isenabled() and gc.get_freeze_count() == 0,
    }


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL: the one on PATH, or the one that the development packages bring."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL server, or no psycopg: `make setup` installs both")
    with running(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def metadata_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty metadata database of either kind: what holds of one holds of the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'metadata.db'}"
    return request.getfixturevalue("postgres").fresh_database()
