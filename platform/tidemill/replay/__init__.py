"""Living through history in simulated time: `tidemill replay`."""

from tidemill.replay.run import Replay, ReplayReport

__all__ = ["Replay", "ReplayReport"]
