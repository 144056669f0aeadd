"""Bringing the metadata database to the newest shape. Alembic runs from code, so that nobody keeps an alembic.ini."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Engine, inspect
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from tidemill.errors import ConfigurationError

HEAD = "0003"
ALEMBIC = threading.Lock()
"""Held around every use of Alembic in this process, MLflow's too: its `context` and `op` are globals of a module, and
two threads that migrate two databases take them from each other."""


def migrate(engine: Engine) -> None:
    """Create the tables, or run what is missing. Two processes may start at once: the second finds the work done.

    Raises ConfigurationError where a newer Tidemill has been at work.
    """
    found = _version(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise ConfigurationError(
            f"The metadata database is of a newer Tidemill: its tables are of version {found}, ours of {HEAD}.",
            hint="Install the newer Tidemill again, or name another database in `metadata_url`.",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic_scripts"))
    try:
        with ALEMBIC, engine.begin() as connection:
            if engine.dialect.name == "sqlite":  # whose driver would otherwise make each table by itself
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (OperationalError, ProgrammingError, IntegrityError):
        if _version(engine) != HEAD:
            raise


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
