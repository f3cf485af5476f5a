"""The house rules that no linter knows: length, reasons beside exceptions, no unsafe decoding, nothing of one machine."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("gopher", "tests", "examples", "benchmarks", "proto", "docs", "deploy", ".ci")
NOT_OURS: Final = ("proto/google/", "node_modules/", "__pycache__/", "benchmarks/results/")
CODE: Final = frozenset({".py", ".lua", ".proto", ".js", ".mjs"})
TEXT: Final = CODE | {".md", ".toml", ".json", ".yaml", ".yml", ".sh", ".txt", ".lock", ""}

LONGEST: Final = {".proto": 300}
LONGEST_TEST: Final = 500
LONGEST_OTHER: Final = 400
# Path -> the reason why this file may be longer. Start with none, end with none.
MAY_BE_LONGER: Final[dict[str, str]] = {}

# Modules that run what they read, or that fork (a forked child hangs or aborts once gRPC is loaded).
UNSAFE_MODULES: Final = frozenset(
    {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "multiprocessing"}
)
UNSAFE_CALLS: Final = frozenset({"eval", "exec", "__import__", "yaml.load", "os.fork"})
# Handlers that fork are a fault that is tested.
MAY_FORK: Final = frozenset({"tests/runtime/test_forks.py", "tests/e2e/apps/poison.py"})

REASON: Final = r"\s*(-+|[:(#])\s*\w"
NOQA: Final = re.compile(r"#\s*noqa\b(?!: [A-Z]+\d+(, ?[A-Z]+\d+)*" + REASON + ")")
TYPE_IGNORE: Final = re.compile(r"#\s*type:\s*ignore\b(?!\[[\w, -]+\]" + REASON + ")")
NO_COVER: Final = re.compile(r"#\s*pragma: no cover\b(?!" + REASON + ")")
MACHINE_PATH: Final = re.compile(r"(?<![\w.~{}-])/(home|root|work|Users)/\w")


def ours(suffixes: frozenset[str]) -> list[str]:
    """Return the repository's own files with these suffixes, as paths from its root."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    names = (path.relative_to(ROOT).as_posix() for path in found if path.suffix in suffixes and path.is_file())
    return sorted(name for name in names if not any(part in name for part in NOT_OURS))


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text()


PYTHON: Final = ours(frozenset({".py"}))


def nodes(name: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(text(name)))


def comments(name: str) -> dict[int, str]:
    """Return the comments of a Python file by line."""
    tokens = tokenize.generate_tokens(io.StringIO(text(name)).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def dotted(node: ast.expr) -> str:
    """Return a name such as `yaml.load`, or an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def unsafe(node: ast.AST) -> str | None:
    """Return what this node uses and must not, if anything."""
    if isinstance(node, ast.Import):
        used = {alias.name.partition(".")[0] for alias in node.names} & UNSAFE_MODULES
    elif isinstance(node, ast.ImportFrom):
        used = {(node.module or "").partition(".")[0]} & UNSAFE_MODULES
    elif isinstance(node, ast.Call):
        used = {dotted(node.func)} & UNSAFE_CALLS
    else:
        used = set()
    return next(iter(used), None)


def wants_reason(node: ast.AST) -> int | None:
    """Return the line of a shield, or of an `except` that stops nearly all, which must carry a comment."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "shield" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
                return keyword.value.lineno
    if isinstance(node, ast.ExceptHandler) and (node.type is None or dotted(node.type) in {"Exception", "BaseException"}):
        last = node.body[-1]
        return None if isinstance(last, ast.Raise) and last.exc is None else node.lineno
    return None


def longest(name: str) -> int:
    if name.startswith("tests/"):
        return LONGEST_TEST
    return LONGEST.get(Path(name).suffix, LONGEST_OTHER)


def test_files_stay_short() -> None:
    """No file is longer than its kind may be, and no exception outlives its need."""
    lines = {name: text(name).count("\n") for name in ours(CODE)}

    too_long = {name for name, count in lines.items() if count > longest(name)}

    assert too_long == set(MAY_BE_LONGER)


@pytest.mark.parametrize("name", PYTHON)
def test_python_decodes_nothing_unsafe_and_never_forks(name: str) -> None:
    """Nothing that runs what it reads is imported or called, and nothing forks."""
    found = [f"{name}:{getattr(node, 'lineno', 0)} {used}" for node in nodes(name) if (used := unsafe(node))]
    if name in MAY_FORK:
        found = [each for each in found if not each.endswith(" os.fork")]

    assert found == []


@pytest.mark.parametrize("name", PYTHON)
def test_exceptions_to_a_rule_carry_their_reason(name: str) -> None:
    """Each noqa, type-ignore and no-cover has its reason on its line, each shield and broad except there or right above."""
    by_line = comments(name)

    bare = [line for line, comment in by_line.items() if any(kind.search(comment) for kind in (NOQA, TYPE_IGNORE, NO_COVER))]
    silent = [line for node in nodes(name) if (line := wants_reason(node)) and not {line, line - 1} & by_line.keys()]

    assert [f"{name}:{line}" for line in sorted(bare + silent)] == []


@pytest.mark.parametrize("name", [name for name in PYTHON if name.startswith("tests/")])
def test_tests_make_a_claim(name: str) -> None:
    """Each test has a docstring that says what it proves."""
    silent = [
        f"{name}:{node.lineno} {node.name}"
        for node in nodes(name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_nothing_names_a_machine() -> None:
    """No file holds a path of the machine it was written on."""
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in ours(TEXT)
        for number, line in enumerate(text(name).splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("name", [name for name in ours(frozenset({".lock", ".json"})) if "lock" in name])
def test_locks_name_no_registry(name: str) -> None:
    """A lock fixes versions and hashes; where they come from is up to whoever installs."""
    found = [
        line.strip() for line in text(name).splitlines() if "index-url" in line or '"resolved"' in line or "@ http" in line
    ]

    assert found == []


def test_dependencies_are_bounded_and_explained() -> None:
    """Each dependency has a lower and an upper bound, and docs/dependencies.md says why it is there."""
    project = tomllib.loads(text("pyproject.toml"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *chain(*extras), *chain(*project["dependency-groups"].values())]
    reasons = text("docs/dependencies.md")

    unbounded = [line for line in wanted if not re.match(r"[\w-]+(\[\w+\])?>=[\d.]+,<[\d.]+", line)]
    names = {re.split(r"[\[>]", line)[0] for line in wanted}
    unexplained = {name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", reasons)}

    assert (unbounded, unexplained) == ([], set())
