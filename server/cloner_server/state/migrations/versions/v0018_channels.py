"""Channels of images, and nodes that follow one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Make the table, and the column of nodes: none follows a channel so far."""
    op.create_table(
        "channel_moves",
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("moved_s", sa.Float(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image", "channel", "revision"),
    )
    op.add_column("nodes", sa.Column("channel", sa.Text(), server_default="", nullable=False))
