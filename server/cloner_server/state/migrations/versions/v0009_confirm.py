"""How clones confirm: per node, per attempt, and how it came about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns; until now every clone called, so what was confirmed was confirmed by that."""
    op.add_column("nodes", sa.Column("confirm", sa.Text(), server_default="", nullable=False))
    op.add_column("attempts", sa.Column("confirm", sa.Text(), server_default="phone-home", nullable=False))
    for table in ("tasks", "receipts"):
        op.add_column(table, sa.Column("confirmed_by", sa.Text(), server_default="", nullable=False))
    op.execute("UPDATE receipts SET confirmed_by = 'phone-home' WHERE confirmed_s IS NOT NULL")
    op.execute(
        "UPDATE tasks SET confirmed_by = 'phone-home' WHERE state = 'done'"
        " AND id IN (SELECT task FROM receipts WHERE confirmed_s IS NOT NULL)"
    )
