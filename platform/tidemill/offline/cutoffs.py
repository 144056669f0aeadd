"""What the online store held at an instant: the cut-off of the newest run that had finished by then (semantics, 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tidemill.definitions.catalog import View
from tidemill.offline.instants import Instants

if TYPE_CHECKING:
    from tidemill.materialize.ledger import Ledger


def served_cutoffs(view: View, at: Instants, ledger: Ledger | None) -> Instants:
    """The cut-off of each instant, int64 microseconds; NEVER where nothing had run yet.

    A view with neither schedule nor stream, and a pushed one, is as fresh as the moment of asking. Before the first
    recorded run the newest tick of the schedule whose lag had passed stands for the run.
    """
    if view.schedule is None or not len(at):
        return at.copy()
    from tidemill.schedule.ticks import newest_ticks

    if ledger is None:
        return newest_ticks(view.schedule, at)
    finished, cutoff = ledger.cutoffs(view.name, between=(int(at.min()), int(at.max())))
    if not len(finished):
        return newest_ticks(view.schedule, at)
    recorded = np.searchsorted(finished, at, side="right") - 1
    result = np.minimum(cutoff[np.maximum(recorded, 0)], at)
    before = recorded < 0
    if before.any():
        result[before] = newest_ticks(view.schedule, at[before])
    return result
