"""Relays: whose token it is, and on whose wire a session is sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the columns: every token captures, and every session is on the server's own wire."""
    op.add_column("tokens", sa.Column("relay", sa.Text(), nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("relay", sa.Text(), nullable=False, server_default=""))
