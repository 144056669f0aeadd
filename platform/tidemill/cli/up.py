"""`tidemill up`, `down` and `status`: a project's Redis, API and scheduler as processes of this machine.

Who is running is decided by a lock and not by a file: every process that `up` starts holds the same open lock file, so
the lock is free exactly when the last of them is gone, however it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import httpx
import psutil

from tidemill.cli.bounded_log import LOG
from tidemill.clock import is_simulated
from tidemill.errors import ConflictError, TidemillError, UnavailableError

if TYPE_CHECKING:
    from tidemill.project import Project
    from tidemill.settings import Settings

_PATIENCE = 120.0  # seconds for the API to become ready, while its process is alive
_LEAST_GRACE = 15.0  # seconds
_SHOWN = 2_000  # characters of a log that a message quotes
_children: list[subprocess.Popen[bytes]] = []  # they outlive us; kept so that nobody takes them for forgotten


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process that was started. `created` tells it from a later process that got the same number."""

    name: str
    pid: int
    created: float
    log: str

    def process(self) -> psutil.Process | None:
        """The process, if it still runs."""
        try:
            found = psutil.Process(self.pid)
            alive = found.create_time() == self.created and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if alive else None


@dataclass(frozen=True, kw_only=True)
class Running:
    """What `up` started, and where the API is."""

    url: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """One line of `tidemill status`."""

    name: str
    state: str
    detail: str


def start_all(project: Project, *, host: str | None = None, port: int | None = None, dashboard: bool = True) -> Running:
    """Start Redis, the API, the scheduler and the consumers that the settings name; returns when the API is ready.

    Raises ConflictError where they run already, NotAppliedError before the first apply, UnavailableError with the end
    of the log of a part that did not come up; then nothing is left running that was started here.
    """
    from tidemill.cli.consuming import check_declared

    settings = project.settings
    host, port = host or settings.host, settings.port if port is None else port
    with _lock(project) as lock:
        _check_applied(project)
        streams = check_declared(project)
        project.redis_address()
        command = [sys.executable, "-m", "tidemill", "serve", "--project", str(project.root), "--host", host]
        command += ["--port", str(port), *(["--dashboard"] if dashboard else [])]
        parts: list[Part] = []
        try:
            parts.append(_start(project, "api", command, lock))
            url = f"http://{host}:{port}"
            _wait_until_ready(url, parts[0])
            work = [sys.executable, "-m", "tidemill.cli.work", str(project.root)]
            parts.append(_start(project, "scheduler", work, lock))
            for stream in streams:
                take = [sys.executable, "-m", "tidemill", "consume", stream, "--project", str(project.root)]
                parts.append(_start(project, f"consumer of {stream}", take, lock))
        except BaseException:
            _end(parts, grace=grace_of(settings))
            raise
        running = Running(url=url, parts=tuple(parts))
        _file(project).write_text(json.dumps(asdict(running), indent=2))
        return running


def _check_applied(project: Project) -> None:
    """Without definitions the API waits for some, and `up` would wait for the API."""
    _ = project.applied


def stop_all(project: Project) -> list[str]:
    """Stop what `up` started, and the embedded Redis (which keeps its data); returns the names of what was running."""
    running = read_running(project)
    stopped = [] if running is None else _end(running.parts, grace=grace_of(project.settings))
    _file(project).unlink(missing_ok=True)
    if project.settings.redis_url is None:
        from tidemill.online.embedded import EmbeddedRedis

        redis = EmbeddedRedis(project.redis_folder)
        if redis.running:
            redis.stop()
            stopped.append("redis")
    return stopped


def read_running(project: Project) -> Running | None:
    """What the last `up` started, whether or not it still runs; None after `down`."""
    try:
        plain = json.loads(_file(project).read_text())
    except FileNotFoundError:
        return None
    return Running(url=plain["url"], parts=tuple(Part(**part) for part in plain["parts"]))


def look(project: Project) -> list[PartStatus]:
    """The state of each part, and of what the project serves."""
    running = read_running(project)
    parts = [] if running is None else [_state_of(part) for part in running.parts]
    known = {part.name for part in parts}
    missing = [PartStatus(name=name, state="stopped", detail="") for name in ("api", "scheduler") if name not in known]
    return [*_clock(project), _redis(project), *parts, *missing, _catalog(project), *_models(project), *_api(running)]


def _start(project: Project, name: str, command: Sequence[str], lock: int) -> Part:
    log = project.state / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", LOG: str(log)}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            start_new_session=True,
            pass_fds=(lock,),
        )
    _children.append(process)
    try:
        created = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        raise _did_not_come_up(name, log) from None
    return Part(name=name, pid=process.pid, created=created, log=str(log))


def _wait_until_ready(url: str, part: Part) -> None:
    deadline = monotonic() + _PATIENCE
    with httpx.Client(base_url=url, timeout=2.0) as client:
        while part.process() is not None and monotonic() < deadline:
            try:
                if client.get("/readyz").status_code == httpx.codes.OK and _listens(part, client.base_url.port):
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            sleep(0.05)
    raise _did_not_come_up(part.name, Path(part.log))


def _listens(part: Part, port: int | None) -> bool:
    """Whether it is this part that answers on the port, and not something that was there before."""
    process = part.process()
    try:
        sockets = [] if process is None else process.net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    return any(socket.status == psutil.CONN_LISTEN and socket.laddr.port == port for socket in sockets)


def _did_not_come_up(name: str, log: Path) -> UnavailableError:
    said = log.read_text(errors="replace")[-_SHOWN:]
    return UnavailableError(f"The {name} did not come up. It said:\n{said}", hint=f"Its whole output is in {log}.")


def grace_of(settings: Settings) -> float:
    """Seconds for a process to finish what it began: a request may take its time to arrive, and again to be answered,
    after those who ask have been told that the server ends."""
    return max(_LEAST_GRACE, 2 * settings.request_timeout + 5.0)


def _end(parts: Sequence[Part], *, grace: float) -> list[str]:
    """Ask all of them to finish, wait, and kill whoever does not."""
    alive = [(part.name, process) for part in parts if (process := part.process()) is not None]
    for _, process in alive:
        process.send_signal(signal.SIGTERM)
    _, stubborn = psutil.wait_procs([process for _, process in alive], timeout=grace)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=grace)
    _children[:] = [child for child in _children if child.poll() is None]
    return [name for name, _ in alive]


@contextmanager
def _lock(project: Project) -> Iterator[int]:
    """The lock's file descriptor, to be handed on to the processes that keep it. Raises ConflictError if it is held."""
    project.state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(project.state / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        running = read_running(project)
        where = "" if running is None else f" at {running.url}"
        raise ConflictError(
            f"Project {project.name!r} is running already{where}.",
            hint="See `tidemill status`; `tidemill down` stops it.",
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # the processes that were started hold it open


def _file(project: Project) -> Path:
    return project.state / "up.json"


def _state_of(part: Part) -> PartStatus:
    process = part.process()
    if process is None:
        return PartStatus(name=part.name, state="ended", detail=f"see {part.log}")
    megabytes = process.memory_info().rss / 2**20
    return PartStatus(name=part.name, state="running", detail=f"process {part.pid}, {megabytes:.0f} MB")


def _clock(project: Project) -> Iterator[PartStatus]:
    """Told only where it is not the present."""
    if is_simulated(project.clock):
        detail = f"stands at {_text(project.clock.now())}; `tidemill clock release` goes back to the present"
        yield PartStatus(name="clock", state="simulated", detail=detail)


def _redis(project: Project) -> PartStatus:
    if project.settings.redis_url is None:
        from tidemill.online.embedded import EmbeddedRedis

        if not EmbeddedRedis(project.redis_folder).running:
            return PartStatus(name="redis", state="stopped", detail="embedded")
    try:
        project.online.ping()
    except TidemillError as error:
        return PartStatus(name="redis", state="trouble", detail=str(error))
    return PartStatus(name="redis", state="running", detail="embedded" if project.settings.redis_url is None else "")


def _catalog(project: Project) -> PartStatus:
    applied = project.catalogs.newest()
    if applied is None:
        return PartStatus(name="catalog", state="missing", detail="run `tidemill apply`")
    return PartStatus(
        name="catalog", state="applied", detail=f"version {applied.version}, {applied.catalog.digest[:12]}"
    )


def _models(project: Project) -> Iterator[PartStatus]:
    applied = project.catalogs.newest()
    for model in () if applied is None else applied.catalog.models:
        deployment = project.deployments.current(model.name)
        if deployment is None:
            yield PartStatus(name=f"model {model.name}", state="untrained", detail=f"run `tidemill train {model.name}`")
        else:
            since = f"since {_text(deployment.changed_at)}"
            yield PartStatus(
                name=f"model {model.name}", state="promoted", detail=f"version {deployment.version} {since}"
            )


def _api(running: Running | None) -> Iterator[PartStatus]:
    if running is None:
        return
    try:
        answer = httpx.get(f"{running.url}/readyz", timeout=2.0)
    except httpx.TransportError as error:
        yield PartStatus(name="readiness", state="trouble", detail=f"{running.url} does not answer: {error}")
        return
    troubles = [
        f"{name}: {part['trouble']}" for name, part in answer.json()["parts"].items() if part["trouble"] is not None
    ]
    yield PartStatus(
        name="readiness",
        state="ready" if answer.status_code == httpx.codes.OK else "not ready",
        detail="; ".join(troubles) or running.url,
    )


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
