"""The tables, and how a database gets them.

Rule 1: a fresh database is made from `metadata` and stamped, which needs no Alembic (12 MiB that would stay in memory
for the life of the process); an older one is migrated by Alembic. A test holds both to the same result.
Rule 2: a row is sealed: `seal` is a hash over its other columns of schema 1. SQLite has no page checksums, and half of
all random damage passes its `integrity_check`. A later revision seals its new columns by a seal of their own.
Rule 3: a revision that only adds (columns with a server default, tables) raises `schema_version`; only one that an
older agent cannot live with raises `min_reader` too. An older agent runs on a newer database when `min_reader` allows.
"""

from collections.abc import Mapping
from hashlib import blake2b

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
)

SCHEMA_VERSION = 1
"""What this agent writes, and the newest it understands."""
MIN_READER = 1
REVISION = "0001"
"""Alembic's name of `SCHEMA_VERSION`."""

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Batch migrations can only drop what has a name."""

metadata = MetaData(naming_convention=NAMES)

schema_meta = Table(
    "schema_meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("min_reader", Integer, nullable=False),
)
targets = Table(
    "targets",
    metadata,
    Column("scope", String, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("digest", String, nullable=False),
    Column("header", String, nullable=False),
    Column("accepted_at", String, nullable=False),
    Column("awaited", String, nullable=False),
    Column("ended", String),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# Apart from `targets`, so that the progress of a target does not write its body again.
target_bodies = Table(
    "target_bodies",
    metadata,
    Column("scope", String, ForeignKey("targets.scope"), primary_key=True),
    Column("raw", LargeBinary, nullable=False),
    Column("raw_sha256", LargeBinary, nullable=False),
    Column("apps", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
floors = Table(
    "floors",
    metadata,
    Column("scope", String, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("digest", String),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
apps = Table(
    "apps",
    metadata,
    Column("app", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("specs", String, nullable=False),
    Column("release", String),
    Column("previous", String),
    Column("revision", String, nullable=False),
    Column("document", LargeBinary),
    Column("previous_images", String, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
bad_releases = Table(
    "bad_releases",
    metadata,
    Column("app", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("revision", String, nullable=False),
    Column("release", String),
    Column("code", String, nullable=False),
    Column("message", String, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
attempts = Table(
    "attempts",
    metadata,
    Column("app", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("spec", String, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("code", String, nullable=False),
    Column("message", String, nullable=False),
    Column("next_at", String, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
commands = Table(
    "commands",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("verb", String, nullable=False),
    Column("request", String, nullable=False),
    Column("received_at", String, nullable=False),
    Column("reply_to", String, nullable=False),
    Column("correlation", LargeBinary),
    Column("answer", LargeBinary),
    Column("issued_at", String),
    Column("expires_at", String),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
orders = Table(
    "orders",
    metadata,
    Column("app", String, primary_key=True),
    Column("service", String, primary_key=True),
    Column("verb", String, nullable=False),
    Column("content", String, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
pulled_images = Table(
    "pulled_images",
    metadata,
    Column("image", String, primary_key=True),
    Column("image_id", String, primary_key=True),
    Column("own", Boolean, nullable=False),
    Column("pulled_at", String, nullable=False),
    Column("platform", String),
    Column("revisions", String, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
outbox = Table(
    "outbox",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("terminal", Boolean, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)
counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
CONTENTS = (
    targets,
    target_bodies,
    floors,
    apps,
    bad_releases,
    attempts,
    commands,
    orders,
    pulled_images,
    outbox,
    counters,
)
"""Parents before children."""

# Alembic's own table, as Alembic makes it; it is no part of what Alembic compares.
alembic_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False, primary_key=True),
)
alembic_version.primary_key.name = "alembic_version_pkc"


def seal(table: Table, row: Mapping[str, object]) -> bytes:
    """Eight bytes over the row. Of types and bytes alone, so that no version of Python or zlib changes it."""
    content = blake2b(table.name.encode(), digest_size=8)
    for column in table.columns:
        if column.name == "seal":
            continue
        match row[column.name]:
            case None:
                content.update(b"n")
            case int() as number:
                content.update(b"i%d;" % number)
            case bytes() as data:
                content.update(b"b%d;" % len(data) + data)
            case value:
                text = str(value).encode()
                content.update(b"s%d;" % len(text) + text)
    return content.digest()


def version(connection: Connection) -> tuple[int, int] | None:
    """`(schema_version, min_reader)`, or None for a database without a single table.

    Raises `ValueError` where there are tables but no version: then it is not ours, or damaged.
    """
    if not connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one():
        return None
    row = connection.execute(select(schema_meta.c.schema_version, schema_meta.c.min_reader)).one_or_none()
    if row is None:
        raise ValueError("the schema's version is missing")
    return int(row.schema_version), int(row.min_reader)


def create(connection: Connection) -> None:
    """All tables, in the transaction of the caller."""
    metadata.create_all(connection, checkfirst=False)
    alembic_version.create(connection, checkfirst=False)
    connection.execute(insert(schema_meta).values(id=1, schema_version=SCHEMA_VERSION, min_reader=MIN_READER))
    connection.execute(insert(alembic_version).values(version_num=REVISION))
