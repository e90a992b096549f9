"""Groups of nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column, in which nodes that exist have no group, and the table of what is set for groups."""
    op.add_column("nodes", sa.Column("groups", sa.Text(), server_default="[]", nullable=False))
    op.create_table(
        "node_groups",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("is_protected", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
