"""Jobs with their idempotency keys, registrations of models, and what was read from the chain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "g0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job", sa.LargeBinary, primary_key=True),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_hash", sa.LargeBinary),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("model", sa.LargeBinary, nullable=False),
        sa.Column("policy", sa.JSON),
        sa.Column("fee_wei", sa.Text, nullable=False),
        sa.Column("elements", sa.LargeBinary),
        sa.Column("ended_block", sa.Integer),
        sa.Column("is_sent", sa.Boolean, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("refusal", sa.Text),
        sa.Column("trouble", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("jobs_by_key", "jobs", ["idempotency_key"], unique=True)
    op.create_index("jobs_by_openness", "jobs", ["is_open"])
    op.create_table(
        "registrations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("model", sa.LargeBinary),
        sa.Column("error", sa.JSON),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("model", sa.LargeBinary, primary_key=True),
        sa.Column("block", sa.Integer, nullable=False),
    )
    op.create_table(
        "worker_keys",
        sa.Column("operator", sa.Text, primary_key=True),
        sa.Column("encryption_key", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "grants",
        sa.Column("model", sa.LargeBinary, primary_key=True),
        sa.Column("encryption_key", sa.LargeBinary, primary_key=True),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("facts", "grants", "worker_keys", "models", "registrations", "jobs"):
        op.drop_table(table)
