"""Alembic's environment: the connection is handed in, inside a transaction of its owner."""

from alembic import context

from device_agent.adapters.store_schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Alembic believes that SQLite cannot roll back DDL. It can, with an explicit BEGIN; otherwise a kill between two
    # statements would leave a database that no later start can migrate.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
