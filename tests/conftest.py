"""Fixtures that every test may use."""

from __future__ import annotations

import os

# One thread for each numerical library: two test processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Feast reports usage to its makers unless told not to.
os.environ.setdefault("FEAST_USAGE", "False")
