"""The story that the demo tells. Each chapter does one real thing through the same functions as the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tidemill.clock import SimulatedClock
from tidemill.errors import ConfigurationError
from tidemill.project import Project

if TYPE_CHECKING:
    from tidemill.cli.output import Output

MODEL = "arrival_delay"
HISTORY = datetime(2013, 1, 1, tzinfo=UTC)
LIVE = datetime(2013, 10, 1, tzinfo=UTC)
END = datetime(2013, 10, 8, tzinfo=UTC)
_MARK = "made-by-demo"
_INSTANT = timedelta(microseconds=1)  # an interval's end is not in it, and what is known at this instant belongs to it
_SHOWN = 5  # findings of the monitor; the rest is a command away
_SEVERITIES = ("critical", "warning", "info")


@dataclass
class Facts:
    """What the chapters found, for the table at the end."""

    predictions: int = 0
    values: int = 0
    unexplained: int = 0
    trained: Any = None
    parity: Any = None
    monitored: Any = None
    decision: Any = None
    reproduced: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("trained", "parity", "monitored", "decision", "reproduced")}
        return {
            "predictions": self.predictions,
            "values": self.values,
            "unexplained": self.unexplained,
            "seconds": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
        } | {name: item.to_dict() for name, item in found.items() if item is not None}


class Story:
    """The loop from raw data to a reproduced model, on the flights of 2013, in the project's own folder."""

    def __init__(self, project: Project, out: Output, *, until: datetime = END) -> None:
        if not isinstance(project.clock, SimulatedClock):
            raise ConfigurationError("The demo lives in simulated time; open the project with its own clock.")
        self._project, self._clock, self._out, self._end = project, project.clock, out, until
        self._facts = Facts()

    def tell(self) -> Facts:
        began = perf_counter()
        self._out.say(
            "[bold]Which flights from New York will arrive late?[/bold]\n"
            "An hour before each scheduled departure of 2013 the answer has to be there.\n",
            marked=True,
        )
        for number, (title, chapter) in enumerate(self._chapters(), start=1):
            with self._chapter(number, title):
                chapter()
        self._facts.seconds["all"] = perf_counter() - began
        self._sum_up()
        return self._facts

    def _chapters(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("Define: features, service and model become a catalog", self._define),
            ("Extract: nine months of flights and weather become Parquet", self._extract),
            ("Materialize: the online store learns the present of 1 October", self._materialize),
            ("Train: on what serving would have returned", self._train),
            ("Live: a week in simulated time, every flight predicted over HTTP", self._live),
            ("Verify: recompute every value that was served", self._verify),
            ("Monitor: drift, freshness, performance", self._monitor),
            ("Retrain: a challenger meets the champion", self._retrain),
            ("Reproduce: the champion, rebuilt from its record", self._reproduce),
        ]

    @contextmanager
    def _chapter(self, number: int, title: str) -> Iterator[None]:
        began = perf_counter()
        self._out.say(f"[bold cyan]{number}[/bold cyan]  [bold]{title}[/bold]", marked=True)
        yield
        seconds = perf_counter() - began
        self._facts.seconds[title.partition(":")[0].lower()] = seconds
        self._out.say(f"   [dim]{seconds:.1f} s[/dim]\n", marked=True)

    def _note(self, text: str) -> None:
        self._out.say(f"   {text}", marked=True)

    def _define(self) -> None:
        from tidemill.feast.apply import apply

        self._clock.set(LIVE)
        with self._out.progress("   reading feature_repo"):
            result = apply(self._project, at=LIVE)
        self._project.reload()
        catalog = self._project.catalog
        features = sum(len(view.features) for view in (*catalog.views, *catalog.on_demand_views))
        self._note(
            f"{len(catalog.views) + len(catalog.on_demand_views)} feature views with {features} features, version "
            f"{result.version} of the definitions, digest {catalog.digest[:12]}."
        )

    def _extract(self) -> None:
        from tidemill.extract import extract

        with self._out.progress("   extracting day by day") as advance:
            reports = extract(self._project, start=HISTORY, end=LIVE + _INSTANT, progress=advance)
        rows = sum(report.rows for report in reports)
        self._note(
            f"{rows:,} rows of {len(reports)} sources, each with the time it happened and the time it was known."
        )

    def _materialize(self) -> None:
        with self._out.progress("   loading Redis"):
            reports = self._project.materialize(until=LIVE)
        written = sum(report.rows_written for report in reports)
        self._note(f"{written:,} rows of {len(reports)} views; eight of them are windows that slide with every event.")

    def _train(self) -> None:
        from tidemill_training.train import train

        with self._out.stages("   training:") as stage:
            trained = train(self._project, MODEL, until=LIVE, progress=stage)
        manifest = trained.artifact.manifest
        self._facts.trained = trained
        self._note(
            f"{manifest.dataset.rows:,} flights, {len(manifest.features)} features, dataset digest "
            f"{manifest.dataset.digest[:12]}; tested on the last two months:"
        )
        self._note("   ".join(f"{name} [bold]{value:.3f}[/bold]" for name, value in trained.metrics.items()))
        self._note(f"Version {trained.version} is the champion: {'; '.join(trained.decision.reasons)}.")

    def _live(self) -> None:
        from tidemill.client import Client
        from tidemill.demo.server import api_of
        from tidemill.replay.run import Replay

        log = self._project.state / "logs" / "demo-api.log"
        total = (self._end - LIVE).total_seconds()
        with api_of(self._project.root, log=log) as url, Client(url) as client:
            replay = Replay(self._project, MODEL, client)
            with self._out.progress("   living") as advance:
                before = LIVE

                def moved(now: datetime, _predictions: int) -> None:
                    nonlocal before
                    advance((now - before).total_seconds() / total, f"{now:%a %d %b %H:%M}")
                    before = now

                report = replay.run(start=LIVE, end=self._end, progress=moved)
        self._facts.predictions = report.predictions
        self._note(
            f"{report.predictions:,} flights predicted an hour ahead, {report.events:,} departures and arrivals pushed "
            f"as they happened, {report.runs} scheduled runs."
        )

    def _verify(self) -> None:
        from tidemill.extract import extract
        from tidemill.monitor.parity import verify

        # The last day lands in history as it would ten minutes after midnight.
        extract(self._project, start=LIVE, end=self._end + _INSTANT)
        with self._out.progress("   recomputing from history"):
            report = verify(self._project, model=MODEL)
        self._facts.parity = report
        self._facts.values, self._facts.unexplained = report.compared, report.unexplained
        self._note(
            f"{report.compared:,} served values compared, {report.equal:,} equal, "
            f"[bold]{report.unexplained} unexplained[/bold]. Details: tidemill verify"
        )

    def _monitor(self) -> None:
        from tidemill.monitor.check import monitor

        with self._out.progress("   comparing the week with the training data"):
            report = monitor(self._project, MODEL, at=self._end)
        self._facts.monitored = report
        by_severity = sorted(report.findings, key=lambda finding: _SEVERITIES.index(finding.severity))
        for finding in by_severity[:_SHOWN]:
            self._note(f"{finding.severity}: {finding.subject}: {finding.what}")
        if len(by_severity) > _SHOWN:
            self._note(f"and {len(by_severity) - _SHOWN} more: tidemill monitor {MODEL}")
        if not by_severity:
            self._note("Nothing drifted, nothing is stale, the model is as good as on its test data.")

    def _retrain(self) -> None:
        from tidemill_training.retrain import retrain

        with self._out.stages("   retraining:") as stage:
            decision = retrain(self._project, MODEL, at=self._end, force=True, progress=stage)
        self._facts.decision = decision
        self._note(f"Why: {'; '.join(check.reason for check in decision.fired)}.")
        self._note(f"The challenger was [bold]{decision.outcome}[/bold]: {'; '.join(decision.reasons)}.")

    def _reproduce(self) -> None:
        from tidemill_training.reproduce import reproduce

        with self._out.stages("   rebuilding:") as stage:
            report = reproduce(self._project, f"{MODEL}@champion", progress=stage)
        self._facts.reproduced = report
        for comparison in report.comparisons:
            self._note(f"{'=' if comparison.equal else '≠'} {comparison.what}: {comparison.recorded[:40]}")

    def _sum_up(self) -> None:
        facts = self._facts
        metrics = facts.trained.metrics
        self._out.table(
            "What just happened",
            ("", ""),
            [
                ("Trained on", f"{facts.trained.artifact.manifest.dataset.rows:,} flights of January to September"),
                (
                    "ROC AUC and average precision on later flights",
                    f"{metrics['roc_auc']:.3f} and {metrics['average_precision']:.3f}",
                ),
                ("Predicted over HTTP, an hour ahead", f"{facts.predictions:,} flights"),
                ("Served values recomputed from history", f"{facts.values:,}"),
                ("of these not the number the model would be trained on", str(facts.unexplained)),
                ("Champion rebuilt from its record", "equal" if facts.reproduced.equal else "NOT equal"),
                ("All this took", f"{facts.seconds['all']:.0f} s"),
            ],
        )
        self._out.say("\nWhat to try next, in feature_repo/ (and `source .venv/bin/activate` in the checkout before):")
        for command, does in (
            ("tidemill up", "leave it all running: API, schedule and dashboard"),
            ("tidemill verify", "the parity table, feature by feature"),
            ("tidemill models list", "who served, and who was refused"),
            ("tidemill init my_project --data my.parquet", "the same for a table of your own"),
        ):
            self._out.say(f"  [bold]{command}[/bold]   {does}", marked=True)


def prepare_stage(project: Project) -> None:
    """Empty what an earlier demo left in the project's folder; what a person made there is never touched.

    Raises ConfigurationError where state or data is there that no demo made.
    """
    mark = project.state / _MARK
    data = project.root / "data"
    if not mark.exists() and (data.exists() or _holds_work(project)):
        raise ConfigurationError(
            f"{project.root} holds data or state that the demo did not make.",
            hint=f"Run the demo on a fresh copy of the folder, or remove {data} and {project.state} yourself.",
        )
    from tidemill.online.embedded import EmbeddedRedis

    EmbeddedRedis(project.redis_folder).stop()
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(project.state, ignore_errors=True)
    project.state.mkdir(parents=True)
    mark.write_text("Everything here was made by `tidemill demo`, which empties it when it runs again.\n")


def _holds_work(project: Project) -> bool:
    return project.state.exists() and any(project.state.iterdir())
