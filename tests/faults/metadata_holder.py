"""A process that holds an exclusive transaction on a SQLite database until it is told that this is enough."""

from __future__ import annotations

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
sys.stdout.write("held\n")
sys.stdout.flush()
sys.stdin.readline()
connection.execute("ROLLBACK")
