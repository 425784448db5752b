"""Migrations: one line of history, and SQL that does not stop a serving database."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from tollhouse_server.database.migrate import config_for

from tests.architecture.tree import ROOT, SERVER

VERSIONS = sorted((SERVER / "database" / "migrations" / "versions").glob("*.py"))
SQUAWK = Path(sys.executable).parent / "squawk"
# Timeouts belong to the connection that migrates, not to each file; a table that this migration has just made is
# locked by nobody else; counts of things that are few stay 32 bits wide.
EXCLUDED = "require-lock-timeout,require-statement-timeout,require-concurrent-index-creation,prefer-bigint-over-int"


def sql_of(version: Path) -> str:
    """Return what a migration would run, without a database."""
    spec = importlib.util.spec_from_file_location(f"migration_{version.stem}", version)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written, "literal_binds": True}
    )
    with Operations.context(context):
        module.upgrade()
    return written.getvalue()


def test_history_has_one_head_and_one_root() -> None:
    """Two heads are two schemas, and which one a server gets would be chance."""
    script = ScriptDirectory.from_config(config_for("postgresql://nowhere/nothing"))

    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
    assert len(list(script.walk_revisions())) == len(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.stem)
def test_migration_passes_the_sql_linter(version: Path, tmp_path: Path) -> None:
    """No lock that waits behind traffic, no statement that rewrites a table under load."""
    file = tmp_path / f"{version.stem}.sql"
    file.write_text(sql_of(version))

    checked = subprocess.run(
        [SQUAWK, "--assume-in-transaction", "--pg-version", "18.0", "--exclude", EXCLUDED, file],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
