"""The route document of a job whose policy was chosen here, so that a retry sends what was decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "g0002"
down_revision = "g0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("route", sa.LargeBinary))


def downgrade() -> None:
    op.drop_column("jobs", "route")
