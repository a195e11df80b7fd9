"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """All tables, by the naming convention of `store_schema`."""
    meta = op.create_table(
        "schema_meta",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("min_reader", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_meta_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_meta")),
    )
    op.create_table(
        "targets",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("header", sa.String(), nullable=False),
        sa.Column("accepted_at", sa.String(), nullable=False),
        sa.Column("awaited", sa.String(), nullable=False),
        sa.Column("ended", sa.String()),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_targets")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "target_bodies",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("raw_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("apps", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["scope"], ["targets.scope"], name=op.f("fk_target_bodies_scope_targets")),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_target_bodies")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "floors",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String()),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_floors")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "apps",
        sa.Column("app", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("specs", sa.String(), nullable=False),
        sa.Column("release", sa.String()),
        sa.Column("previous", sa.String()),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.Column("previous_images", sa.String(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("app", name=op.f("pk_apps")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bad_releases",
        sa.Column("app", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("app", name=op.f("pk_bad_releases")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attempts",
        sa.Column("app", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("spec", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("next_at", sa.String(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("app", "subject", name=op.f("pk_attempts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("received_at", sa.String(), nullable=False),
        sa.Column("reply_to", sa.String(), nullable=False),
        sa.Column("correlation", sa.LargeBinary()),
        sa.Column("answer", sa.LargeBinary()),
        sa.Column("issued_at", sa.String()),
        sa.Column("expires_at", sa.String()),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "orders",
        sa.Column("app", sa.String(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("app", "service", name=op.f("pk_orders")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pulled_images",
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("image_id", sa.String(), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("pulled_at", sa.String(), nullable=False),
        sa.Column("platform", sa.String(), nullable=True),
        sa.Column("revisions", sa.String(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("image", "image_id", name=op.f("pk_pulled_images")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("terminal", sa.Boolean(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
        sqlite_with_rowid=False,
    )
    op.execute(sa.insert(meta).values(id=1, schema_version=1, min_reader=1))
