"""written candidates: their source, and what the gate recognises them by."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("candidate", schema=None) as batch_op:
        batch_op.add_column(sa.Column("source_sha", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("prints", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    raise NotImplementedError("an older Archwright does not read what a newer one wrote")
