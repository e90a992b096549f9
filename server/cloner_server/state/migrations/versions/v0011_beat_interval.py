"""How often each attempt was told to beat."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; NULL for attempts that were told by a server that did not keep it."""
    op.add_column("attempts", sa.Column("beat_every_s", sa.Float(), nullable=True))
