"""Writes `generated/gopher_pb` from the protos, or tells with `--check` whether it has drifted from them.

The protos are the package `gopher.v1`, on the wire and in every language. In Python that name lies inside our own package `gopher`
and would be hidden by it, so what protoc writes is moved to `gopher_pb` and its imports are rewritten.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
GENERATED = PROTO.parent / "generated"
# The module names that protoc writes; never the strings that name messages and methods on the wire.
IMPORTS = (
    (re.compile(r"^(from|import) gopher\.v1\b", re.MULTILINE), r"\1 gopher_pb.v1"),
    (re.compile(r"\bgopher\.v1\.(\w+_pb2)\b"), r"gopher_pb.v1.\1"),
)


def run_protoc(*arguments: str) -> None:
    """Run protoc with the plugins of this virtual environment; exit with its status when it fails."""
    tools = Path(sys.executable).parent
    plugins = [f"--plugin={name}={tools / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    includes = [f"--proto_path={path}" for path in (PROTO, files("grpc_tools") / "_proto")]
    if status := protoc.main(["protoc", *includes, *plugins, *arguments]):
        sys.exit(status)


def generate(target: Path) -> Path:
    """Write the package `gopher_pb` into the empty directory `target` and return its path."""
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("gopher/v1/*.proto"))
    services = [name for name in protos if name.endswith("_service.proto")]
    run_protoc(f"--python_out={target}", f"--mypy_out=quiet:{target}", *protos)
    run_protoc(f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services)
    package = (target / "gopher").rename(target / "gopher_pb")
    for path in package.rglob("*.py*"):
        text = path.read_text()
        for pattern, replacement in IMPORTS:
            text = pattern.sub(replacement, text)
        path.write_text(text)
    for name in ("__init__.py", "v1/__init__.py", "py.typed"):
        (package / name).touch()
    return package


def drift(old: Path, new: Path) -> list[str]:
    """Return the files that are not the same in both packages."""
    names = {
        str(path.relative_to(root)) for root in (old, new) for path in root.rglob("*.py*") if "__pycache__" not in path.parts
    }
    _, differing, missing = filecmp.cmpfiles(old, new, names, shallow=False)
    return sorted(differing + missing)


def main() -> None:
    """Generate, or check."""
    committed = GENERATED / "gopher_pb"
    with tempfile.TemporaryDirectory() as name:
        fresh = generate(Path(name))
        if sys.argv[1:] == ["--check"]:
            if drifted := drift(committed, fresh):
                sys.exit(f"generated code has drifted from the protos, run `make proto`: {', '.join(drifted)}")
            return
        shutil.rmtree(committed, ignore_errors=True)
        shutil.copytree(fresh, committed)


if __name__ == "__main__":
    main()
