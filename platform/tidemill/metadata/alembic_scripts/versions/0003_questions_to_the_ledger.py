"""What is asked of a ledger of any length is answered from its newest end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_HAS_CUTOFF = sa.text("cutoff IS NOT NULL")


def upgrade() -> None:
    op.drop_index("runs_by_view", "runs")
    op.create_index("runs_by_view", "runs", ["project", "view", "state", "id"])
    op.create_index("runs_by_state", "runs", ["project", "state", "id"])
    _index_done("runs_by_end", "interval_end", "id")
    _index_done("runs_by_cutoff", "cutoff", "interval_end", "id")
    _index_done("runs_by_finish", "finished_at", "id", "cutoff")


def downgrade() -> None:
    for name in ("runs_by_finish", "runs_by_cutoff", "runs_by_end", "runs_by_state", "runs_by_view"):
        op.drop_index(name, "runs")
    op.create_index("runs_by_view", "runs", ["project", "view", "state", "finished_at"])


def _index_done(name: str, *columns: str) -> None:
    op.create_index(name, "runs", ["project", "view", *columns], sqlite_where=_HAS_CUTOFF, postgresql_where=_HAS_CUTOFF)
