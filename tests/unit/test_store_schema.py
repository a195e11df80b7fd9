"""The two ways to a database, made fresh or migrated, lead to the same one; and a start needs no Alembic."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from device_agent.adapters import migrations, store_schema
from device_agent.adapters.store_database import connect, disconnect


def layout(path: Path) -> list[tuple[str, str, str]]:
    """Every table's columns and constraints, as SQLite reads them."""
    with sqlite3.connect(path) as look:
        tables = [name for (name,) in look.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
        found = [
            (table, pragma, str(row))
            for table in tables
            for pragma in ("table_xinfo", "foreign_key_list", "index_list")
            for row in look.execute(f"PRAGMA {pragma}({table})")
        ]
        found += [(row[1], "table_list", str(row)) for row in look.execute("PRAGMA table_list") if row[1] in tables]
        found += [("rows", "", str(row)) for row in look.execute("SELECT * FROM schema_meta, alembic_version")]
    look.close()
    return sorted(found)


def test_a_fresh_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    fresh, migrated = connect(tmp_path / "fresh"), connect(tmp_path / "migrated")
    with fresh.begin():
        store_schema.create(fresh)
    with migrated.begin():
        migrations.upgrade(migrated)
        assert compare_metadata(MigrationContext.configure(migrated), store_schema.metadata) == []
    disconnect(fresh)
    disconnect(migrated)
    assert layout(tmp_path / "fresh") == layout(tmp_path / "migrated")


def test_the_newest_revision_is_the_one_that_a_fresh_database_is_stamped_with() -> None:
    assert ScriptDirectory(str(migrations.LOCATION)).get_heads() == [store_schema.REVISION]


START = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from device_agent.adapters.store import open_store

class At:
    def now(self): return datetime(2026, 11, 22, tzinfo=UTC)
    def monotonic(self): return 0.0

for _ in range(2):
    open_store(Path(sys.argv[1]), At()).close()
print(sorted(name for name in ("alembic", "mako", "sqlalchemy.orm", "sqlalchemy.ext") if name in sys.modules))
"""


def test_a_start_imports_neither_alembic_nor_an_orm(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path / "data")],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
