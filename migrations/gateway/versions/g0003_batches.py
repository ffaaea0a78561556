"""How many inputs a job was given, where its model takes several: the others only fill the batch up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "g0003"
down_revision = "g0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("given", sa.Integer))


def downgrade() -> None:
    op.drop_column("jobs", "given")
