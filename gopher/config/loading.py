"""Reading the settings of a program from its flags, the environment and a TOML file, and writing them back.

A value comes from the first of these that has one: the flag, the environment (the first of the setting's variables that is set
and not empty), the file, the default. `load` is pure and reports all faults at once.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from gopher.config.sections import (
    ORIGINAL_ADDRESS,
    SECTIONS,
    DevConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
    WorkerConfig,
)
from gopher.config.setting import Section, Setting, describe, name_of, settings_of
from gopher.config.values import is_masked
from gopher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Flags: TypeAlias = Mapping[str, str | bool]
Document: TypeAlias = Mapping[str, object]
"""What a TOML file holds."""

DEFAULT_SOURCE: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that takes settings.

    Attributes:
        name: As it is called.
        help: What it does, in a sentence.
        tables: The sections it reads; the others are left at their defaults, whatever the environment says.
        defaults: Where it differs from a field's own default; by `table.field`.
        required: `table.field` of what must be said.
    """

    name: str
    help: str
    tables: tuple[str, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()


SERVER: Final = Program(name="gopher-server", help="Serve gRPC, and HTTP if asked to.", tables=("server", "store", "telemetry"))
WORKER: Final = Program(
    name="gopher-worker", help="Run jobs.", tables=("worker", "store", "telemetry"), required=("worker.app",)
)
DEV: Final = Program(
    name="gopher dev",
    help="Run all on this machine: an embedded Redis (unless one is named), the server, and a worker if --app names handlers.",
    tables=("worker", "server", "dev", "store", "telemetry"),
    defaults={
        "server.http_address": "127.0.0.1:8080",
        "server.reflection": "true",
        "telemetry.log_format": "console",
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings of a program.

    Attributes:
        sources: By `table.field`: `default`, or the flag, variable or file that the value comes from.
    """

    program: Program
    store: StoreConfig
    server: ServerConfig
    worker: WorkerConfig
    dev: DevConfig
    telemetry: TelemetryConfig
    sources: Mapping[str, str]


def read_document(path: Path) -> Document:
    """Return what the TOML file holds.

    Raises:
        ConfigError: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"--config, GOPHER_CONFIG: cannot read {path}: {reason}"]) from error


def load(
    program: Program,
    *,
    flags: Flags,
    environ: Mapping[str, str],
    document: Document | None = None,
    document_name: str = "the file",
) -> Settings:
    """Return the effective settings.

    Args:
        program: Whose.
        flags: Those given, by flag (`--grpc`).
        environ: The environment; an empty variable counts as unset.
        document: What the TOML file holds; None when there is none.
        document_name: Of the file, for messages.

    Raises:
        ConfigError: It lists every fault.
    """
    reader = _Reader(program, flags, _with_original_address(environ), document or {}, document_name)
    sections = {table: reader.section(table) for table in SECTIONS}
    reader.check_keys()
    if reader.problems:
        raise ConfigError(reader.problems)
    return Settings(
        program=program,
        store=cast("StoreConfig", sections["store"]),
        server=cast("ServerConfig", sections["server"]),
        worker=cast("WorkerConfig", sections["worker"]),
        dev=cast("DevConfig", sections["dev"]),
        telemetry=cast("TelemetryConfig", sections["telemetry"]),
        sources=reader.sources,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """One call of `load`: the layers, and what was found in them."""

    program: Program
    flags: Flags
    environ: Mapping[str, str]
    document: Document
    document_name: str
    problems: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def section(self, table: str) -> Section:
        """Return the section; where a value is wrong its default stands in, and the problem is noted."""
        kind = SECTIONS[table]
        if table not in self.program.tables:
            return kind()
        values: dict[str, object] = {}
        for name, spec, hint in settings_of(kind):
            raw, source = self.find(table, name, spec)
            self.sources[f"{table}.{name}"] = source
            if raw is not None:
                self.accept(values, name, name_of(table, name, spec), raw, source, spec, hint)
            elif f"{table}.{name}" in self.program.required:
                self.problems.append(f"{name_of(table, name, spec)}: must be set. {spec.help}")
        try:
            return kind(**values)
        except ConfigError as error:
            self.problems.extend(error.problems)
            return kind()

    def find(self, table: str, name: str, spec: Setting) -> tuple[object, str]:
        """Return the raw value (None: none) and where it comes from."""
        if spec.flag is not None and spec.flag in self.flags:
            return self.flags[spec.flag], f"flag {spec.flag}"
        for variable in spec.variables:
            if self.environ.get(variable):
                return self.environ[variable], f"variable {variable}"
        of_file = self.document.get(table)
        if isinstance(of_file, Mapping) and name in of_file:
            return of_file[name], f"file {self.document_name}"
        return self.program.defaults.get(f"{table}.{name}"), DEFAULT_SOURCE

    def accept(
        self, values: dict[str, object], name: str, names: str, raw: object, source: str, spec: Setting, hint: object
    ) -> None:
        """Convert the raw value and keep it, or note why it is wrong."""
        if spec.mask and isinstance(raw, str) and is_masked(raw):
            self.problems.append(
                f"{names}: expected the password itself, got the '***' that --print-config shows for it ({source})"
            )
            return
        try:
            parsed = spec.parse(raw) if isinstance(raw, str) and spec.parse else raw
            # Lax only for text, which is all that a flag or a variable can hold: `"8"` is 8, but 8 is no text.
            values[name] = msgspec.convert(parsed, hint, strict=not isinstance(parsed, str))
        except ValueError as error:
            # The parsers say what they got; msgspec (whose error is a ValueError too) does not.
            text = describe(error, hint)
            if isinstance(error, msgspec.ValidationError):
                shown = spec.mask(str(raw)) if spec.mask else raw
                text = f"{text.partition(', got ')[0]}, got {shown!r}"
            self.problems.append(f"{names}: {text} ({source})")

    def check_keys(self) -> None:
        """Note each table and key of the file that no program knows."""
        for table, content in self.document.items():
            if table not in SECTIONS:
                known = ", ".join(SECTIONS)
                self.problems.append(f"{self.document_name}: unknown table {table!r}; expected {known}")
            elif not isinstance(content, Mapping):
                self.problems.append(f"{self.document_name}: {table} must be a table, [{table}]")
            else:
                known_keys = [name for name, _, _ in settings_of(SECTIONS[table])]
                self.problems.extend(
                    f"{self.document_name}: unknown key {table}.{key}; expected one of {', '.join(known_keys)}"
                    for key in content
                    if key not in known_keys
                )


def _with_original_address(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the original's two address variables joined to one."""
    joined = dict(environ)
    host, port = joined.get("SERVER_HOST"), joined.get("SERVER_PORT")
    if host or port:
        bracketed = f"[{host}]" if host and ":" in host else host or "127.0.0.1"
        joined[ORIGINAL_ADDRESS] = f"{bracketed}:{port or '8080'}"
    return joined


def describe_settings(settings: Settings) -> str:
    """Return the effective settings as a TOML file whose comments tell the sources; passwords are masked."""
    return "\n".join(_described_lines(settings))


def _described_lines(settings: Settings) -> Iterator[str]:
    for table in settings.program.tables:
        section: Section = getattr(settings, table)
        yield f"[{table}]"
        for name, spec, _ in settings_of(SECTIONS[table]):
            value = getattr(section, name)
            source = settings.sources[f"{table}.{name}"]
            if value is None:
                yield f"# {name} is unset  # {source}"
                continue
            text = as_text(value)
            shown = value if isinstance(value, bool | int | float) else spec.mask(text) if spec.mask else text
            yield f"{name} = {json.dumps(shown)}  # {source}"
        yield ""


def arguments_for(section: Section) -> list[str]:
    """Return the flags that give a program this section whatever its environment says; what has no flag or no value is left out."""
    arguments: list[str] = []
    for name, spec, _ in settings_of(type(section)):
        value = getattr(section, name)
        if spec.flag is None or value is None:
            continue
        if isinstance(value, bool):
            arguments.append(spec.flag if value else f"--no-{spec.flag.removeprefix('--')}")
        else:
            arguments.append(f"{spec.flag}={as_text(value)}")
    return arguments


def as_text(value: object) -> str:
    """Return the value as a flag takes it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={weight}" for name, weight in value.items())
    return str(value)
