"""Alembic's entry point. The connection is handed over by `tidemill.metadata.migrations.migrate`."""

from alembic import context

from tidemill.metadata.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
