"""How far a run has come, noted for whoever tries its interval again, and followed only where that is sure to be right.

Who goes on at a chunk passes over all that came before it. That loses nothing if the store still has what the earlier
try wrote, if that try read all that would be read now, and if both begin with the same. So the note says from where to
where the store was loaded, by which definitions, and from which files. It lies in the ledger, where a run that failed
or died is found, and in Redis, where it is only for as long as the values are.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemill.clock import as_utc
from tidemill.definitions.catalog import View
from tidemill.materialize.records import Claim
from tidemill.materialize.report import SUCCEEDED, RunReport
from tidemill.offline.edition import Edition
from tidemill.online.run_note import delete_note, read_note, write_note

if TYPE_CHECKING:
    from tidemill.project import Project

_log = logging.getLogger(__name__)

_COUNTS = ("rows_read", "rows_written", "rows_unchanged", "rows_skipped")


class Trail:
    """The notes of one run, which loads what lies after `loaded`, chunk by chunk.

    One that `begins_anew` follows nobody and is followed by nobody: its notes only say how far it is.
    """

    def __init__(
        self, project: Project, view: View, claim: Claim, *, loaded: datetime | None, begins_anew: bool = False
    ) -> None:
        self._project, self._view, self._claim, self._loaded = project, view, claim, loaded
        self._begins_anew = begins_anew
        self._run = {
            "start": _text(claim.start),
            "end": _text(claim.end),
            "definitions": project.catalog.digest,
            "layout": project.online.layout,
        }
        self._edition: Edition | None = None
        self._is_in_redis = False

    def followed(self, *, at: datetime) -> tuple[RunReport, datetime | None]:
        """A fresh report and what is loaded already; or those at which an earlier try of the run had arrived."""
        report = RunReport(view=self._view.name, start=self._claim.start, end=self._claim.end, state=SUCCEEDED)
        if self._claim.progress is None:
            return report, self._loaded
        saved = None if self._begins_anew else self._usable()
        if saved is None:
            self._tell("%s up to %s begins at its first chunk again.", "run_begins_anew")
            self._project.ledger.save_progress(self._claim, None, at=at, further=False)
            return report, self._loaded
        self._tell("%s up to %s goes on where an earlier try had come.", "run_goes_on")
        done = datetime.fromisoformat(saved["done"])
        report = replace(report, went_on_from=done, **{name: saved[name] for name in _COUNTS})
        self._project.ledger.save_progress(self._claim, self._progress(report, done), at=at, further=False)
        return report, done

    def begin(self) -> None:
        """Look at the source before the first row of it is read: what changes from now on is seen by the next try."""
        if self._edition is None and not self._begins_anew:
            offline = self._project.offline
            self._edition = Edition.of(offline.catalog.source(self._view.source), offline.root)

    def note(self, report: RunReport, done: datetime, *, at: datetime) -> None:
        """All of the run up to `done` is in the store. Raises OnlineStoreUnavailableError."""
        progress = self._progress(report, done)
        if self._edition is not None:
            online = self._project.online
            write_note(online.resp, online.catalog, self._view, json.dumps({"run": self._run, "progress": progress}))
            self._is_in_redis = True
        self._project.ledger.save_progress(self._claim, progress, at=at)

    def end(self) -> None:
        """The run has come to its end, and there is nothing left to go on with. Raises OnlineStoreUnavailableError."""
        if self._is_in_redis:
            online = self._project.online
            delete_note(online.resp, online.catalog, self._view)

    def _usable(self) -> dict[str, Any] | None:
        """What Redis has noted of this run, if it holds now. That may be a chunk more or less than the ledger's."""
        if json.loads(self._claim.progress or "{}").get("source") is None:
            return None
        online = self._project.online
        text = read_note(online.resp, online.catalog, self._view)
        if text is None:
            return None
        self._is_in_redis = True
        note = json.loads(text)
        saved = json.loads(note["progress"])
        if note["run"] != self._run or saved["loaded"] != _text(self._loaded):
            return None
        self.begin()
        return saved if self._source_up_to(datetime.fromisoformat(saved["done"])) == saved["source"] else None

    def _progress(self, report: RunReport, done: datetime) -> str:
        said = {"done": _text(done), "loaded": _text(self._loaded), "source": self._source_up_to(done)}
        counts = {name: getattr(report, name) for name in _COUNTS}
        return json.dumps({**said, "went_on_from": _text(report.went_on_from), **counts})

    def _source_up_to(self, done: datetime) -> str | None:
        return None if self._edition is None else self._edition.up_to(done)

    def _tell(self, text: str, action: str) -> None:
        _log.info(text, self._view.name, self._claim.end, extra={"action": action})


def _text(at: datetime | None) -> str | None:
    return None if at is None else as_utc(at).isoformat()
