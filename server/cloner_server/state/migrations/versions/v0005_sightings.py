"""Sightings of booting nodes, and what of a plan its receipt must repeat."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add table and column; attempts that run have nothing to compare their receipt with beyond the digest."""
    op.add_column("attempts", sa.Column("planned", sa.Text(), nullable=True))
    op.create_table(
        "sightings",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["nodes.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("node", "step"),
    )
