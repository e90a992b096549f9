"""Extra files of nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; nodes that exist have none."""
    op.add_column("nodes", sa.Column("files", sa.Text(), server_default="[]", nullable=False))
