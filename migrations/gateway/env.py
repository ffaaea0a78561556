"""Runs revisions on the connection that ``api.database`` hands over."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
# SQLite can take DDL back; Alembic assumes that it cannot.
context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
