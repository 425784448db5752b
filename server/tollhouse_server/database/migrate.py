"""Bring the schema up to date with alembic, from code: no alembic.ini, so a wheel can migrate."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from tollhouse_server.database.dsn import engine_url

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

    Blocking: call it before an event loop runs, or in a thread.
    """
    command.upgrade(config_for(dsn), "head")
