"""Versions that were removed stay as rows, so that their numbers are never given again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the column; none was removed before."""
    op.add_column("versions", sa.Column("removed_s", sa.Float(), nullable=True))
