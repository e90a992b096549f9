"""Seats: which attempt of a task has one; a machine that was restarted takes another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the column; seats of before are of no attempt, and are taken anew."""
    op.add_column("session_seats", sa.Column("attempt", sa.Text(), nullable=False, server_default=""))
