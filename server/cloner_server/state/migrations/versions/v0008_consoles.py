"""Passwords of consoles; where attempts are and what their consoles saw."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table of passwords and add the columns; nothing is known of attempts that were."""
    op.create_table(
        "console_passwords",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("set_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name"),
    )
    op.add_column("attempts", sa.Column("address", sa.Text(), server_default="", nullable=False))
    op.add_column("attempts", sa.Column("console", sa.Text()))
