"""The settings themselves: one frozen section a concern, each field with its default, bounds, flag and variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Meta

from gopher.config.setting import Section, name_of, setting, settings_of
from gopher.config.values import (
    CONCURRENCY_BOUNDS,
    is_loopback,
    mask_url,
    mask_whole,
    parse_address,
    parse_concurrency,
    parse_count,
    parse_queues,
    parse_redis_url,
    parse_seconds,
    split_address,
    split_concurrency,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_REDIS_URL: Final = "redis://127.0.0.1:6379/0"
ORIGINAL_ADDRESS: Final = "SERVER_HOST/SERVER_PORT"
"""The original's two variables, which together say one address: that of its REST server."""

MAX_CONCURRENCY: Final = 100_000
Concurrency = Annotated[int, Meta(ge=1, le=MAX_CONCURRENCY)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Size = Annotated[int, Meta(ge=1024, le=512 * 1024 * 1024)]
Bounds = Annotated[
    str, Meta(pattern=f"^{CONCURRENCY_BOUNDS.pattern}$", description="a number such as 100, or bounds such as '5-200'")
]
App = Annotated[
    str, Meta(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$", description="MODULE:REGISTRY, such as 'shop.jobs:registry'")
]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_.-]{0,63}$",
        description="a name of a-z, 0-9, '_', '.' and '-' that begins with a letter, at most 64 long, such as 'mail.eu'",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig(Section):
    """Where Redis is."""

    table = "store"

    redis_url: str | None = setting(
        None,
        "--redis-url",
        "GOPHER_REDIS_URL REDIS_URL",
        f"Redis to use: a redis://, rediss:// or unix:// URL. Unset: {DEFAULT_REDIS_URL}; gopher dev starts its own.",
        parse=parse_redis_url,
        mask=mask_url,
    )
    redis_password: str | None = setting(
        None, None, "GOPHER_REDIS_PASSWORD REDIS_PASSWORD", "Password, where the URL holds none.", mask=mask_whole
    )
    redis_db: Annotated[int, Meta(ge=0, le=65_535)] | None = setting(
        None, "--redis-db", "GOPHER_REDIS_DB REDIS_DB", "Number of the database, where the URL holds none."
    )
    redis_timeout_seconds: Seconds = setting(
        5.0,
        "--redis-timeout",
        "GOPHER_REDIS_TIMEOUT REDIS_TIMEOUT",
        "Longest wait for an answer of Redis at the start, seconds.",
        parse=parse_seconds,
    )

    @property
    def location(self) -> str:
        """Where Redis is, for people: HOST:PORT or the path of a socket, with no password."""
        parts = urlsplit(self.url)
        return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]

    @property
    def url(self) -> str:
        """The whole URL, with password and database."""
        parts = urlsplit(self.redis_url or DEFAULT_REDIS_URL)
        user_info, separator, host = parts.netloc.rpartition("@")
        if self.redis_password is not None and ":" not in user_info:
            user_info, separator = f"{user_info}:{quote(self.redis_password, safe='')}", "@"
        query = dict(parse_qsl(parts.query))
        # The path of a unix:// URL is that of the socket; of the others it is the number of the database.
        names_db = "db" in query or (parts.scheme != "unix" and parts.path.strip("/") != "" and self.redis_url is not None)
        if self.redis_db is not None and not names_db:
            query["db"] = str(self.redis_db)
        whole = urlunsplit(parts._replace(netloc=f"{user_info}{separator}{host}", query=urlencode(query)))
        # urlunsplit leaves an empty authority out; Redis clients want unix:///path.
        return whole if "://" in whole else whole.replace(":", "://", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Section):
    """What the server listens on and what it accepts."""

    table = "server"

    grpc_address: str = setting(
        "127.0.0.1:50051", "--grpc", "GOPHER_GRPC", "Address of gRPC; port 0 picks a free one.", parse=parse_address
    )
    http_address: str | None = setting(
        None,
        "--http",
        f"GOPHER_HTTP {ORIGINAL_ADDRESS}",
        "Address of HTTP; port 0 picks a free one, 'none' serves none.",
        parse=parse_address,
    )
    accept_unknown_types: bool = setting(
        False,
        "--accept-unknown-types",
        "GOPHER_ACCEPT_UNKNOWN_TYPES",
        "Accept jobs of a type that no worker has registered yet.",
    )
    reflection: bool = setting(False, "--reflection", "GOPHER_REFLECTION", "Serve gRPC reflection.")
    channelz: bool = setting(
        False, "--channelz", "GOPHER_CHANNELZ", "Serve channelz: sockets, calls and channels, as gRPC itself sees them."
    )
    insecure: bool = setting(
        False, "--insecure", "GOPHER_INSECURE", "Allow plaintext on an address that other machines can reach."
    )
    max_message_bytes: Size = setting(1024 * 1024, "--max-message-bytes", "GOPHER_MAX_MESSAGE_BYTES", "Largest request, bytes.")
    max_payload_bytes: Size = setting(
        256 * 1024, "--max-payload-bytes", "GOPHER_MAX_PAYLOAD_BYTES", "Largest payload of a job, bytes."
    )
    grace_seconds: Seconds = setting(
        10.0,
        "--grace",
        "GOPHER_SERVER_GRACE",
        "How long a stop lets calls finish before it ends them, seconds.",
        parse=parse_seconds,
    )
    remote_lease_seconds: Annotated[float, Meta(ge=1, le=3600)] = setting(
        30.0,
        "--remote-lease",
        "GOPHER_REMOTE_LEASE",
        "As --lease of a worker, for workers that are connected over WorkerService, seconds.",
        parse=parse_seconds,
    )

    def conflicts(self) -> Iterator[str]:
        """Refuse plaintext that leaves the machine, and a payload that no message can carry."""
        names = names_in(ServerConfig)
        for name, address in (("grpc_address", self.grpc_address), ("http_address", self.http_address)):
            if address is None:
                continue
            try:
                host, _ = split_address(address)
            except ValueError as error:
                yield f"{names[name]}: {error}"
                continue
            if not self.insecure and not is_loopback(host):
                yield (
                    f"{names[name]}: other machines can reach {address}, and what they say would travel in plaintext; "
                    "use a loopback address, or allow it with --insecure (GOPHER_INSECURE)"
                )
        if self.max_payload_bytes > self.max_message_bytes:
            yield f"{names['max_payload_bytes']}: expected at most max_message_bytes ({self.max_message_bytes})"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(Section):
    """What a worker runs, and how much at once."""

    table = "worker"

    app: App = setting(
        "", "--app", "GOPHER_APP", "Registry of handlers, as MODULE:REGISTRY; the working directory is on the import path."
    )
    queues: Annotated[dict[Name, Annotated[int, Meta(ge=1, le=1000)]], Meta(min_length=1)] = setting(
        {"default": 1}, "--queues", "GOPHER_QUEUES", "Queues and their weights, as a=2,b=1.", parse=parse_queues
    )
    namespace: Name = setting("default", "--namespace", "GOPHER_NAMESPACE", "Where the queues and types are.")
    concurrency: Concurrency | Bounds = setting(
        100,
        "--concurrency",
        "GOPHER_CONCURRENCY WORKER_CONCURRENCY",
        "Most jobs that one process runs at once; as MIN-MAX, it finds the number between them.",
        parse=parse_concurrency,
    )
    processes: Annotated[int, Meta(ge=1, le=256)] | Literal["auto"] = setting(
        1, "--processes", "GOPHER_PROCESSES", "How many worker processes to run; auto: one a usable CPU.", parse=parse_count
    )
    subprocesses: Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"] = setting(
        "auto",
        "--subprocesses",
        "GOPHER_SUBPROCESSES",
        "Most process=True jobs that one process runs at once; auto: as many as there are usable CPUs for it.",
        parse=parse_count,
    )
    grace_seconds: Seconds = setting(
        30.0,
        "--grace",
        "GOPHER_WORKER_GRACE WORKER_SHUTDOWN_TIMEOUT",
        "How long a stop lets jobs finish before it gives them back, seconds.",
        parse=parse_seconds,
    )
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] = setting(
        30.0,
        "--lease",
        "GOPHER_LEASE",
        "How long after a worker's last sign of life its jobs are run elsewhere, seconds.",
        parse=parse_seconds,
    )
    poll_interval_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = setting(
        5.0,
        "--poll-interval",
        "GOPHER_POLL_INTERVAL WORKER_POLL_INTERVAL",
        "How often to look for jobs that no push has told of, seconds.",
        parse=parse_seconds,
    )
    max_retries: Annotated[int, Meta(ge=0, le=99)] = setting(
        3,
        "--max-retries",
        "GOPHER_MAX_RETRIES WORKER_MAX_RETRIES",
        "Retries of a job where neither submitter nor handler says.",
    )
    max_result_bytes: Size = setting(
        64 * 1024, "--max-result-bytes", "GOPHER_MAX_RESULT_BYTES", "Largest result of a job, bytes."
    )
    tracebacks: bool = setting(
        True,
        "--tracebacks",
        "GOPHER_TRACEBACKS",
        "Keep the traceback of a failed attempt with its job, where clients can read it; --no-tracebacks keeps it in the log only.",
    )

    @property
    def slots(self) -> tuple[int, int]:
        """The least and the most jobs that one process runs at once."""
        return split_concurrency(self.concurrency)

    def conflicts(self) -> Iterator[str]:
        """Refuse bounds that no number of jobs is within."""
        low, high = self.slots
        if not 1 <= low <= high <= MAX_CONCURRENCY:
            expected = f"expected MIN-MAX with 1 <= MIN <= MAX <= {MAX_CONCURRENCY}"
            yield f"{names_in(WorkerConfig)['concurrency']}: {expected}, got {self.concurrency!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevConfig(Section):
    """What only `gopher dev` has."""

    table = "dev"

    data_dir: str = setting(
        ".gopher", "--data-dir", "GOPHER_DATA_DIR", "Folder where the embedded Redis keeps the jobs; made if missing."
    )

    @property
    def data_path(self) -> Path:
        """The folder, absolute."""
        return Path(self.data_dir).expanduser().absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig(Section):
    """What a program tells of itself."""

    table = "telemetry"

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "--log-level", "GOPHER_LOG_LEVEL LOG_LEVEL", "debug, info, warning or error.", parse=str.lower
    )
    log_format: Literal["json", "console"] = setting(
        "json", "--log-format", "GOPHER_LOG_FORMAT LOG_FORMAT", "json or console.", parse=str.lower
    )
    tracing: bool = setting(False, "--tracing", "GOPHER_TRACING", "Record an OpenTelemetry span a submit and an attempt.")
    trace_ratio: Annotated[float, Meta(ge=0, le=1)] = setting(
        1.0, "--trace-ratio", "GOPHER_TRACE_RATIO", "Of the traces that begin here, the share that is recorded, 0 to 1."
    )


def names_in(section: type[Section]) -> dict[str, str]:
    """Return all names of each setting of the section, by field."""
    return {name: name_of(section.table, name, spec) for name, spec, _ in settings_of(section)}


SECTIONS: Final[dict[str, type[Section]]] = {
    each.table: each for each in (StoreConfig, ServerConfig, WorkerConfig, DevConfig, TelemetryConfig)
}
