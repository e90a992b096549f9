"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table of the first release."""
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("is_alarm", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of_object", "events", ["object", "what", "time_s"], unique=False)
    op.create_table(
        "layouts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "number"),
    )
    op.create_table(
        "leases",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False),
        sa.Column("expires_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("address"),
    )
    op.create_index(
        "one_lease_a_machine",
        "leases",
        ["mac"],
        unique=True,
        sqlite_where=sa.text("mac <> ''"),
        postgresql_where=sa.text("mac <> ''"),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("layout", sa.Text(), server_default="", nullable=False),
        sa.Column("netboot", sa.Text(), server_default="local", nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("local_method", sa.Text(), server_default="exit", nullable=False),
        sa.Column("boot_order", sa.Text(), server_default="network-first", nullable=False),
        sa.Column("kernel_arguments", sa.Text(), server_default="[]", nullable=False),
        sa.Column("is_protected", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("protected_serials", sa.Text(), server_default="[]", nullable=False),
        sa.Column("fingerprint", sa.Text(), server_default="", nullable=False),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("facts_s", sa.Float(), nullable=True),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "receipts",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("accepted_s", sa.Float(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("confirmed_s", sa.Float(), nullable=True),
        sa.Column("boot_id", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("attempt"),
    )
    op.create_index(op.f("ix_receipts_node"), "receipts", ["node"], unique=False)
    op.create_index(op.f("ix_receipts_task"), "receipts", ["task"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), server_default="", nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("layout_number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("attempts_allowed", sa.Integer(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("changed_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_tasks_node"), "tasks", ["node"], unique=False)
    op.create_index(op.f("ix_tasks_state"), "tasks", ["state"], unique=False)
    op.create_index(
        "one_live_task",
        "tasks",
        ["node"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'waiting', 'booting', 'running', 'lost', 'unconfirmed', 'frozen')"),
        postgresql_where=sa.text(
            "state IN ('queued', 'waiting', 'booting', 'running', 'lost', 'unconfirmed', 'frozen')"
        ),
    )
    op.create_table(
        "vault",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )
    op.create_table(
        "versions",
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("published_s", sa.Float(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image", "number"),
    )
    op.create_index(op.f("ix_versions_digest"), "versions", ["digest"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("credential_hash", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("seed", sa.Text(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("confirm_hash", sa.Text(), nullable=False),
        sa.Column("started_s", sa.Float(), nullable=False),
        sa.Column("beat_s", sa.Float(), nullable=False),
        sa.Column("rival_s", sa.Float(), nullable=True),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("is_destroyed", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("plan_digest", sa.Text(), nullable=True),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("identity_s", sa.Float(), nullable=True),
        sa.Column("committed_s", sa.Float(), nullable=True),
        sa.Column("ended_s", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("confirm_hash"),
        sa.UniqueConstraint("credential_hash"),
    )
    op.create_index(op.f("ix_attempts_task"), "attempts", ["task"], unique=False)
    op.create_table(
        "claims",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("minted_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float(), nullable=False),
        sa.Column("used_s", sa.Float(), nullable=True),
        sa.Column("attempt", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_index(op.f("ix_claims_task"), "claims", ["task"], unique=False)
    op.create_table(
        "node_keys",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["nodes.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("kind", "value"),
    )
    op.create_index(op.f("ix_node_keys_node"), "node_keys", ["node"], unique=False)
    op.create_table(
        "task_log",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_task_log_task"), "task_log", ["task"], unique=False)
