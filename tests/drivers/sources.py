"""Where our programs lie."""

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]

CLI_SOURCES = (str(_ROOT / "protos"), str(_ROOT / "admin_cli"))
"""All that the command line needs; the server is not there for it."""
