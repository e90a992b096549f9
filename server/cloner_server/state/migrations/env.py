"""Alembic's entry: runs the migrations on the connection `database._migrate` hands over."""

from alembic import context

from cloner_server.state.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
