"""A process that holds an exclusive transaction on a SQLite database for a while; the tests of this folder start it."""

from __future__ import annotations

import sqlite3
import sys
import time

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN EXCLUSIVE")
sys.stdout.write("held\n")
sys.stdout.flush()
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
