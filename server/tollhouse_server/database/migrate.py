"""Bring the schema up to date with alembic, from code: no alembic.ini, so a wheel can migrate."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from tollhouse_server.database.dsn import engine_url
from tollhouse_server.database.integrity import LOCK_NOT_AVAILABLE, refusal_of
from tollhouse_server.errors import StoreUnavailable

_SCRIPTS = Path(__file__).parent / "migrations"


def config_for(dsn: str) -> Config:
    """Return an alembic configuration for `dsn` (the role that owns the schema)."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = engine_url(dsn)
    return config


def upgrade(dsn: str) -> None:
    """Apply every migration that is missing; safe to run from several processes at once (advisory lock).

    Blocking: call it before an event loop runs, or in a thread. What was applied before an error stays; rights on new
    tables and their row security come with the last migration.

    Raises:
        StoreUnavailable: others use a table all the time.
    """
    try:
        command.upgrade(config_for(dsn), "head")
    except DBAPIError as error:
        if refusal_of(error)[0] != LOCK_NOT_AVAILABLE:
            raise
        raise StoreUnavailable(detail="a table that is to be migrated is in use by long transactions") from error
