"""The README's promises, run as they stand: its snippets, its commands, its targets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.programs import ROOT, STOP_SECONDS, Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_server import RedisServer

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS: Final = "127.0.0.1:50051"
REDIS_URL: Final = "redis://127.0.0.1:6379/0"


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block_with(language: str, text: str) -> str:
    """Return the only block of the language that holds the text."""
    (found,) = (block for block in blocks(language) if text in block)
    return found


def command_with(text: str) -> list[str]:
    """Return the arguments of the only command line that holds the text, without its program and without `&`."""
    (line,) = (line for block in blocks("sh") for line in block.splitlines() if text in line)
    return shlex.split(line.removesuffix("&"), comments=True)[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's `app.py`."""
    (tmp_path / "app.py").write_text(block_with("python", "# app.py"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def environ(folder: Path) -> dict[str, str]:
    """The environment of a program that is started in the folder and finds this checkout's packages."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "generated"), str(folder)])}


def run_python(code: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a snippet and return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environ, timeout=STOP_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def run_gopher(arguments: list[str], folder: Path, environ: dict[str, str]) -> str:
    """Run a command of the CLI and return what it prints."""
    return run_python(
        f"import sys; from gopher.cli.main import main; sys.argv[1:] = {arguments!r}; sys.exit(main())", folder, environ
    )


def test_readme_handler_runs_in_dev_and_is_called_from_shell_and_python(
    redis_program: str, folder: Path, environ: dict[str, str]
) -> None:
    """The first handler of a newcomer: served by `gopher dev`, submitted by the CLI, submitted by the client."""
    dev = command_with("gopher dev --app app:registry")
    submit = command_with("gopher submit greet")
    client = block_with("python", "from gopher.client import Client")

    ports = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with Program("gopher.cli.main", *dev, *ports, environ=environ, directory=folder) as program:
        address = program.wait_ready()["grpc"]
        shown = run_gopher([*submit, "--server", address], folder, environ)
        printed = run_python(client.replace(ADDRESS, address), folder, environ)
        code = program.stop()

    assert ADDRESS in client
    assert "Hello, world" in shown
    assert "Hello, world" in printed
    assert code == 0
    assert (folder / ".gopher").is_dir()


def test_readme_parts_run_apart(redis_server: RedisServer, folder: Path, environ: dict[str, str]) -> None:
    """Server and worker, each started by the README's own command, find each other in Redis."""
    server = [word.replace(REDIS_URL, redis_server.url) for word in command_with("gopher-server --redis-url")]
    worker = [word.replace(REDIS_URL, redis_server.url) for word in command_with("gopher-worker --redis-url")]

    with (
        Program("gopher.cli.server", *server, "--grpc", "127.0.0.1:0", environ=environ, directory=folder) as serving,
        Program("gopher.cli.worker", *worker, environ=environ, directory=folder) as working,
    ):
        address = serving.wait_ready()["grpc"]
        working.wait_ready()
        shown = run_gopher([*command_with("gopher submit greet"), "--server", address], folder, environ)
        codes = working.stop(), serving.stop()

    assert "Hello, world" in shown
    assert codes == (0, 0)


def test_readme_test_of_a_handler_passes(redis_program: str, folder: Path, environ: dict[str, str]) -> None:
    """A handler is tested with no server, in the README's few lines."""
    snippet = block_with("python", "gopher.testing")

    run_python(snippet, folder, environ)

    assert "assert job.state is gopher.JobState.COMPLETED" in snippet


def test_readme_names_targets_that_exist() -> None:
    """Each `make` command of the README is a target with help."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    targets = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")}

    assert targets == {"setup", "demo", "test", "check", "bench"}
    assert all(re.search(rf"^{target}:.*## ", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_page_names_files_that_exist(page: Path) -> None:
    """Each relative link, and each path under `tests/` or `gopher/` that stands in code marks, leads to a file or folder."""
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = [ROOT / path for path in re.findall(r"`((?:tests|gopher|benchmarks|examples|proto)/[\w./-]+)`", text)]

    assert [str(each) for each in links + paths if not each.exists()] == []
