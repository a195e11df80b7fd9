"""The database's revisions. Imported only when an older database must be migrated: it brings Alembic with it.

Everything runs in the caller's transaction: a kill at any point leaves the older database as it was. A revision sets
`schema_meta` itself, and raises `min_reader` only when an older agent could not live with it.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

LOCATION = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """To the newest revision."""
    config = Config()
    config.set_main_option("script_location", str(LOCATION).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
