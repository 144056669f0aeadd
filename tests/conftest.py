"""Fixtures that every test may use."""

from __future__ import annotations

import os

# One thread for each numerical library: two test processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Feast reports usage to its makers unless told not to.
os.environ.setdefault("FEAST_USAGE", "False")
# Where tests import Feast before anything of ours, it would have all metrics of the process kept in shared files.
import prometheus_client  # noqa: F401
