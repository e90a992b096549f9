"""Inventories without a task: their claims, and the machines that are no nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Make both tables; nothing was discovered before."""
    op.create_table(
        "discover_claims",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("minted_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float(), nullable=False),
        sa.Column("used_s", sa.Float(), nullable=True),
        sa.Column("public_key", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_index("ix_discover_claims_object", "discover_claims", ["object"])
    op.create_table(
        "machines",
        sa.Column("mac", sa.Text(), nullable=False),
        sa.Column("netboot", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("facts_s", sa.Float(), nullable=True),
        sa.Column("allowed_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("mac"),
    )
