"""Checks the .proto files without a network: `python protos/lint.py [lint | breaking | release]`.

buf works on images that protoc wrote, so it never fetches a module. `breaking` compares with the last released surface,
the image `protos/tollhouse.binpb`; `release` writes that image. Without a command both checks run. An exit status other
than 0 means findings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from generate import ROOT, proto_files, protoc

RELEASED = ROOT / "tollhouse.binpb"


def build_image(target: Path) -> None:
    """Write all schemas with comments and imports as one image."""
    protoc(["--include_imports", "--include_source_info", f"--descriptor_set_out={target}"], proto_files())


def buf(*arguments: str) -> int:
    """Run buf with the repository's settings and return its exit status."""
    executable = Path(sysconfig.get_path("scripts")) / "buf"
    return subprocess.run([str(executable), *arguments], check=False, cwd=ROOT.parent).returncode


def lint(image: Path) -> int:
    """Check style and comments."""
    return buf("lint", str(image))


def breaking(image: Path) -> int:
    """Check that nothing released has changed incompatibly."""
    if not RELEASED.exists():
        sys.stdout.write("no released version yet: nothing can break\n")
        return 0
    return buf("breaking", str(image), "--against", str(RELEASED))


def release(image: Path) -> int:
    """Make the present schemas the released surface."""
    RELEASED.write_bytes(image.read_bytes())
    return 0


COMMANDS = {"lint": lint, "breaking": breaking, "release": release}


def main() -> int:
    """Parse arguments, run one command, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", nargs="?", choices=sorted(COMMANDS), help="default: lint and breaking")
    chosen = parser.parse_args().command
    commands = [COMMANDS[chosen]] if chosen else [lint, breaking]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        build_image(image)
        return max(command(image) for command in commands)


if __name__ == "__main__":
    sys.exit(main())
