"""What a node's machine must say of itself, and which one waits to be accepted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns; nodes that exist take any machine with their MAC, as before."""
    op.add_column("nodes", sa.Column("uuid", sa.Text(), server_default="", nullable=False))
    op.add_column("nodes", sa.Column("serial", sa.Text(), server_default="", nullable=False))
    op.add_column("nodes", sa.Column("offered", sa.Text(), nullable=True))
