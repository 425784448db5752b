"""Generates the Python stubs beside the .proto files: `python protos/generate.py [--check]`.

With `--check` nothing in the tree is touched: the stubs are generated into a temporary folder and compared, and the
exit status is 1 when the committed ones are missing, stale or orphaned.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STUB_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def proto_files(root: Path = ROOT) -> list[str]:
    """Return every .proto below `root`, as paths relative to it, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.proto"))


def protoc(arguments: list[str], files: list[str]) -> None:
    """Run grpcio-tools' protoc with the include paths of this tree; raise CalledProcessError when it refuses."""
    scripts = sysconfig.get_path("scripts")
    includes = [f"-I{ROOT}", f"-I{sysconfig.get_path('purelib')}"]
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")])}
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments, *files]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def generate(target: Path) -> None:
    """Write the stubs of every .proto below `target`; files without a service get no grpc stubs."""
    files = proto_files()
    with_services = [name for name in files if "\nservice " in (ROOT / name).read_text()]
    protoc([f"--python_out={target}", f"--mypy_out=quiet:{target}"], files)
    if with_services:
        protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"], with_services)


def stubs(root: Path) -> dict[str, bytes]:
    """Return the generated files below `root` by relative path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*_pb2*"))
        if path.name.endswith(STUB_SUFFIXES)
    }


def differences(committed: dict[str, bytes], fresh: dict[str, bytes]) -> list[str]:
    """Name every stub that is missing, stale or orphaned."""
    missing = [f"missing  {name}" for name in sorted(fresh.keys() - committed.keys())]
    orphaned = [f"orphaned {name}" for name in sorted(committed.keys() - fresh.keys())]
    stale = [f"stale    {name}" for name in sorted(fresh.keys() & committed.keys()) if fresh[name] != committed[name]]
    return missing + orphaned + stale


def check() -> list[str]:
    """Generate into a temporary folder and return how the committed stubs differ."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return differences(stubs(ROOT), stubs(Path(folder)))


def main() -> int:
    """Parse arguments, generate or check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs, change nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    found = check()
    sys.stdout.write("".join(f"{line}\n" for line in found) or "stubs are current\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
