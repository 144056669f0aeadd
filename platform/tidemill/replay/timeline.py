"""What happens when: the moments of a replay, each with the work that is due at it.

Pure arithmetic on arrays of instants (int64 microseconds since 1970 UTC), so that the order of a replayed week can be
tested without a store or a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One instant of a replay, in the order in which its work is done.

    First `events` that became known after the previous moment and up to this one, by source, as row ranges; then the
    schedule, where `ticks` says so; then the `requests` made at exactly this instant, as a row range. So a prediction
    sees what was known by its instant, itself included, as `known <= t` asks.
    """

    at: int
    events: Mapping[str, slice]
    ticks: bool
    requests: slice


def moments(*, known: Mapping[str, np.ndarray], ticks: np.ndarray, requests: np.ndarray) -> Iterator[Moment]:
    """The moments of a replay in ascending order: every tick and every request's instant.

    `known` holds the known time of each source's events, `requests` the request time of each spine row; both ascending.
    Events known after the last moment belong to no moment.
    """
    instants = np.union1d(ticks, requests)
    due = np.isin(instants, ticks)
    upto = {source: np.searchsorted(times, instants, side="right") for source, times in known.items()}
    first = np.searchsorted(requests, instants, side="left")
    last = np.searchsorted(requests, instants, side="right")
    done = dict.fromkeys(known, 0)
    for place, at in enumerate(instants):
        events = {}
        for source, counts in upto.items():
            if counts[place] > done[source]:
                events[source] = slice(done[source], int(counts[place]))
                done[source] = int(counts[place])
        yield Moment(
            at=int(at), events=events, ticks=bool(due[place]), requests=slice(int(first[place]), int(last[place]))
        )
