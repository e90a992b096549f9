"""Multicast sessions: what is sent to whom, who has which seat, and which nodes wait for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

_ZERO = sa.text("0")


def upgrade() -> None:
    """Make the tables; the tasks that there are belong to no session."""
    op.add_column("tasks", sa.Column("session", sa.Integer(), nullable=False, server_default=_ZERO))
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("state", "image")),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("pack_map", sa.Text(), nullable=False, server_default=""),
        sa.Column("least", sa.Integer(), nullable=False),
        sa.Column("wait_s", sa.Float(), nullable=False),
        sa.Column("is_start_now", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("asked_bps", "rate_bps")),
        sa.Column("hops", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("interface", "group")),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False, server_default=_ZERO),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default=_ZERO)
            for name in ("epochs", "deaths", "receivers", "parcels")
        ),
        sa.Column("data_bytes", sa.BigInteger(), nullable=False, server_default=_ZERO),
        sa.Column("sent", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False, server_default=""),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=True) for name in ("gathered_s", "started_s", "ended_s")),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_state", "sessions", ["state"])
    op.create_table(
        "session_seats",
        sa.Column("session", sa.Integer(), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False, server_default=""),
        sa.Column("parcels", sa.Integer(), nullable=False, server_default=_ZERO),
        sa.Column("loss", sa.Float(), nullable=False, server_default=_ZERO),
        sa.Column("stream", sa.BigInteger(), nullable=False, server_default=_ZERO),
        sa.Column("receiver", sa.Integer(), nullable=False, server_default=_ZERO),
        sa.Column("seated_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("session", "node"),
    )
    op.create_index("ix_session_seats_task", "session_seats", ["task"])
    op.create_table(
        "waiting",
        sa.Column("node", sa.Text(), sa.ForeignKey("nodes.name", ondelete="CASCADE"), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False, server_default=""),
        sa.Column("public_key", sa.Text(), nullable=False, server_default=""),
        *(sa.Column(name, sa.Float(), nullable=True) for name in ("since_s", "seen_s")),
        sa.Column("address", sa.Text(), nullable=False, server_default=""),
        sa.Column("link_mbps", sa.Integer(), nullable=False, server_default=_ZERO),
        sa.Column("former", sa.Text(), nullable=False),
        sa.Column("leave", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("node"),
    )
