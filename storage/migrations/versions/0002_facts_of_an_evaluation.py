"""facts of an evaluation; the leaderboard view says where scores are of stand-ins."""

import sqlalchemy as sa
from alembic import op

from storage.models import VIEWS

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("facts", sa.JSON(), nullable=False, server_default="{}"))
    for name, select in VIEWS.items():
        op.execute(f"DROP VIEW IF EXISTS {name}")
        op.execute(f"CREATE VIEW {name} AS {select}")


def downgrade() -> None:
    raise NotImplementedError("an older Archwright does not read what a newer one wrote")
