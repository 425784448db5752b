"""Where our programs lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CLI_SOURCES = (str(ROOT / "protos"), str(ROOT / "admin_cli"))
"""All that the command line needs; the server is not there for it."""
