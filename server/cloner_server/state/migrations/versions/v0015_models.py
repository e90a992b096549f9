"""How machines of one model boot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Make the table; nodes that have what the site has anyhow take it from there, and from models to come."""
    op.create_table(
        "hardware_models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("vendor", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("local_method", sa.Text(), nullable=False),
        sa.Column("boot_order", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute("UPDATE nodes SET local_method = '' WHERE local_method = 'exit'")
    op.execute("UPDATE nodes SET boot_order = '' WHERE boot_order = 'network-first'")
