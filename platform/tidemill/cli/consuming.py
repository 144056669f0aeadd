"""The process of `tidemill consume`: takes events from a log until it is told to stop, and says how it fares."""

from __future__ import annotations

from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from tidemill.cli.health import serve_health
from tidemill.cli.stopping import Stop, stop_when_told
from tidemill.errors import ConfigurationError, InputError, TidemillError, UnavailableError
from tidemill.online.consumer import Consumed, Trouble, consume, open_log
from tidemill.online.push import TARGETS, PushResult, find_stream

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.project import Project

_LONGEST_PAUSE = 30.0  # seconds between two attempts while something does not answer
_SILENCE = 60.0  # seconds without a finished poll after which the process counts as unwell
_NEWS = 1.0  # seconds for which the definitions are taken to be as they were


def find_address(project: Project, stream: str, given: str | None) -> str:
    """Where a stream's events are: as asked for, as the settings say, as the source says, or in the project's Redis."""
    stream = find_stream(project.catalog, stream)
    if given:
        return given
    if stream in project.settings.consume:
        return project.settings.consume[stream].get_secret_value()
    if declared := project.catalog.stream(stream).address:
        return declared
    own = project.redis_address()
    return f"{own}{'&' if '?' in own else '?'}stream={stream}"


class Consuming:
    """One consumer. Its health is that of the last poll: whether it went well, and how long ago it was."""

    def __init__(
        self, project: Project, stream: str, *, address: str, to: str, group: str, consumer: str, out: Output
    ) -> None:
        if to not in TARGETS:
            raise InputError(f"Cannot push to {to!r}.", hint=f"Expected one of: {', '.join(TARGETS)}.")
        self._project, self._to, self._out = project, to, out
        self._stream = find_stream(project.catalog, stream)
        self._log = open_log(address, group=group, consumer=consumer)
        self._group, self._consumer = group, consumer
        self._stop = Stop()
        self._total = Consumed()
        self._lag: int | None = None
        self._trouble: str | None = None
        self._attempt = 0
        self._polled = self._looked = self._told = monotonic()
        self._told_of = 0

    def run(self, *, batch: int, every: float, drain: bool, port: int | None) -> Consumed:
        """Consume until SIGTERM or SIGINT, or with `drain` until nothing is left; what is in hand is finished, unless
        the signal comes again."""
        self._stop = stop_when_told()
        views = [view for view in self._project.catalog.views_of_stream(self._stream) if view.is_pushed]
        for view in views:
            if view.is_windowed and view.event_id is None:
                self._out.warn(f"View {view.name!r} names no event id: an event delivered twice counts twice there.")
        with serve_health(self.health, lambda: _metrics(self.health()), port=port) as address:
            if address is not None:
                self._out.say(f"Health is told at {address}/healthz.")
            self._out.say(f"Consuming {self._stream!r} as {self._consumer!r} of group {self._group!r}.")
            try:
                consume(
                    self._log,
                    self._push,
                    clock=self._project.clock,
                    event_ids=tuple(dict.fromkeys(view.event_id for view in views if view.event_id)),
                    limit=batch,
                    wait=min(1.0, every),
                    stop=self._stop.is_set,
                    after=lambda done: self._note(done, every=every, drain=drain),
                    try_again=self._try_again,
                )
            finally:
                self._log.close()
        return self._total

    def health(self) -> dict[str, Any]:
        """What /healthz answers; `well` decides its status."""
        silent = monotonic() - self._polled
        return {
            "well": self._trouble is None and silent < _SILENCE,
            "stream": self._stream,
            "accepted": self._total.accepted,
            "duplicates": self._total.duplicates,
            "set_aside": self._total.set_aside,
            "lag": self._lag,
            "trouble": self._trouble,
            "seconds_since_poll": round(silent, 1),
        }

    def _push(self, rows: list[dict[str, Any]], at: datetime) -> PushResult:
        if monotonic() - self._looked > _NEWS:
            self._project.reload()  # views that were applied meanwhile
            self._looked = monotonic()
        return self._project.push(self._stream, rows, to=self._to, at=at)

    def _note(self, done: Consumed, *, every: float, drain: bool) -> None:
        self._polled, self._trouble, self._attempt = monotonic(), None, 0
        self._total += done
        if drain and done == Consumed() and self._measure_lag() == 0:
            self._stop.set()
        if (since := monotonic() - self._told) >= every:
            self._measure_lag()
            self._tell(since)

    def _measure_lag(self) -> int | None:
        try:
            self._lag = self._log.lag()
        except UnavailableError:  # the next poll says so, too
            self._lag = None
        return self._lag

    def _tell(self, seconds: float) -> None:
        total = self._total
        handled = total.accepted + total.duplicates + total.set_aside
        rate = (handled - self._told_of) / seconds
        behind = "" if self._lag is None else f", {self._lag:,} behind"
        self._out.say(
            f"{total.accepted:,} events accepted, {total.duplicates:,} seen before, {total.set_aside:,} set aside; "
            f"{rate:,.0f} a second{behind}"
        )
        self._told, self._told_of = monotonic(), handled

    def _try_again(self, trouble: Trouble) -> bool:
        """Wait, longer each time, and go on; nothing is acknowledged meanwhile."""
        if self._trouble != str(trouble):
            self._out.warn(str(trouble))
        self._trouble = str(trouble)
        self._stop.wait(min(0.25 * 2**self._attempt, _LONGEST_PAUSE))
        self._attempt = min(self._attempt + 1, 10)
        return True


def _metrics(health: dict[str, Any]) -> str:
    """In Prometheus's text format."""
    label = f'stream="{health["stream"]}"'
    lines = ["# TYPE tidemill_consumed_events_total counter"]
    lines += [
        f'tidemill_consumed_events_total{{{label},outcome="{outcome}"}} {health[outcome]}'
        for outcome in ("accepted", "duplicates", "set_aside")
    ]
    lines += ["# TYPE tidemill_consumer_well gauge", f"tidemill_consumer_well{{{label}}} {int(health['well'])}"]
    if health["lag"] is not None:
        lines += ["# TYPE tidemill_consumer_lag gauge", f"tidemill_consumer_lag{{{label}}} {health['lag']}"]
    return "\n".join(lines) + "\n"


def check_declared(project: Project) -> list[str]:
    """The streams that `consume:` in the settings names. Raises ConfigurationError for one that cannot be consumed."""
    from tidemill.online.kafka_topic import find_client, read_kafka_address
    from tidemill.online.redis_stream import read_stream_address

    for stream, secret in project.settings.consume.items():
        address = secret.get_secret_value()
        try:
            if find_stream(project.catalog, stream) != stream:
                raise InputError(f"{stream!r} is no stream's name.")
            if address.startswith("kafka:"):
                find_client()
                read_kafka_address(address)
            else:
                read_stream_address(address)
        except TidemillError as error:
            raise ConfigurationError(f"`consume: {stream}` in the settings is wrong: {error}") from error
    return list(project.settings.consume)
