"""Scripts of images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the table, and to each task which set it was armed with: those that exist were armed with none."""
    op.create_table(
        "script_sets",
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image", "number"),
    )
    op.add_column("tasks", sa.Column("scripts_number", sa.Integer(), server_default=sa.text("0"), nullable=False))
