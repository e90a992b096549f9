"""Which kind of task a receipt is of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column; all receipts so far are of deploys."""
    op.add_column("receipts", sa.Column("kind", sa.Text(), server_default="deploy", nullable=False))
