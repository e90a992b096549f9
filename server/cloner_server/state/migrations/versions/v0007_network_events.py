"""Events that anybody on the network can cause are marked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; events that exist are kept as long as those of admins."""
    op.add_column("events", sa.Column("is_network", sa.Boolean(), server_default=sa.text("0"), nullable=False))
