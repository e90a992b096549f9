"""Where nodes are plugged in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; nothing is known of nodes that exist."""
    op.add_column("nodes", sa.Column("switch", sa.Text(), server_default="", nullable=False))
    op.add_column("nodes", sa.Column("neighbors", sa.Text(), server_default="[]", nullable=False))
    op.add_column("nodes", sa.Column("relay", sa.Text(), server_default="", nullable=False))
