from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, get_args

import msgspec
import pytest

from gopher import config
from gopher.cli.options import program_app
from gopher.config import Settings, WorkerConfig
from gopher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APP = {"--app": "mail:registry"}


def load_worker(
    flags: Mapping[str, str | bool] = {}, environ: Mapping[str, str] = {}, document: Mapping[str, object] = {}
) -> Settings:
    return config.load(config.WORKER, flags={**APP, **flags}, environ=environ, document=document, document_name="gopher.toml")


def problems(*layers: Mapping[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_worker(*layers)  # type: ignore[arg-type]  # layers that are wrong on purpose
    return caught.value.problems


def test_load_takes_the_first_layer_that_has_a_value() -> None:
    """Flag before variable before file before default, and the source of each is told."""
    document = {"worker": {"concurrency": 3, "processes": 3, "max_retries": 3, "grace_seconds": 3}}
    environ = {"WORKER_CONCURRENCY": "2", "GOPHER_PROCESSES": "2", "WORKER_MAX_RETRIES": "2"}

    settings = load_worker({"--concurrency": "1"}, environ, document)

    worker = settings.worker
    assert (worker.concurrency, worker.processes, worker.grace_seconds, worker.lease_seconds) == (1, 2, 3.0, 30.0)
    assert settings.sources["worker.concurrency"] == "flag --concurrency"
    assert settings.sources["worker.processes"] == "variable GOPHER_PROCESSES"
    assert settings.sources["worker.grace_seconds"] == "file gopher.toml"
    assert settings.sources["worker.lease_seconds"] == "default"


def test_load_prefers_our_variable_to_that_of_the_original() -> None:
    """When both are set, GOPHER_ counts."""
    settings = load_worker(environ={"GOPHER_CONCURRENCY": "7", "WORKER_CONCURRENCY": "8"})

    assert settings.worker.concurrency == 7


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("REDIS_URL", "redis:6379", "store.redis_url", "redis://redis:6379"),
        ("REDIS_PASSWORD", "hunter2", "store.redis_password", "hunter2"),
        ("REDIS_DB", "4", "store.redis_db", 4),
        ("REDIS_TIMEOUT", "3s", "store.redis_timeout_seconds", 3.0),
        ("WORKER_CONCURRENCY", "9", "worker.concurrency", 9),
        ("WORKER_POLL_INTERVAL", "500ms", "worker.poll_interval_seconds", 0.5),
        ("WORKER_MAX_RETRIES", "0", "worker.max_retries", 0),
        ("WORKER_SHUTDOWN_TIMEOUT", "1m", "worker.grace_seconds", 60.0),
        ("LOG_LEVEL", "DEBUG", "telemetry.log_level", "debug"),
        ("LOG_FORMAT", "console", "telemetry.log_format", "console"),
    ],
)
def test_load_knows_the_variables_of_the_original(variable: str, value: str, field: str, expected: object) -> None:
    """Each of the original's variables sets what it set there."""
    section, _, name = field.partition(".")

    assert getattr(getattr(load_worker(environ={variable: value}), section), name) == expected


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"SERVER_PORT": "9000"}, "127.0.0.1:9000"),
        ({"SERVER_HOST": "localhost"}, "localhost:8080"),
        ({"SERVER_HOST": "::1", "SERVER_PORT": "9000"}, "[::1]:9000"),
        ({"SERVER_PORT": "9000", "GOPHER_HTTP": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({}, None),
    ],
)
def test_load_joins_host_and_port_of_the_original(environ: dict[str, str], address: str | None) -> None:
    """SERVER_HOST and SERVER_PORT are the address of HTTP, because the original's server spoke REST."""
    settings = config.load(config.SERVER, flags={}, environ=environ)

    assert settings.server.http_address == address


def test_load_counts_an_empty_variable_as_unset() -> None:
    """A variable that a compose file passes on empty does not hide the default."""
    assert load_worker(environ={"GOPHER_CONCURRENCY": "", "WORKER_CONCURRENCY": "5"}).worker.concurrency == 5


def test_load_tells_all_faults_at_once_with_their_cure() -> None:
    """Each fault has its own line: flag, variables, key, what was expected, what came and from where."""
    found = problems(
        {"--concurrency": "0", "--grace": "soon"},
        {"GOPHER_QUEUES": "{x}=1", "WORKER_MAX_RETRIES": "many"},
        {"worker": {"processes": "two", "colour": 1}, "wrker": {}, "store": 5},
    )

    text = "\n".join(found)
    assert len(found) == 8
    assert (
        "--concurrency, GOPHER_CONCURRENCY, WORKER_CONCURRENCY, worker.concurrency: "
        "expected int >= 1, got '0' (flag --concurrency)"
    ) in found
    assert "expected seconds (30, 1.5) or a length of time (500ms, 90s, 1h30m), got 'soon' (flag --grace)" in text
    assert "got '{x}=1' (variable GOPHER_QUEUES)" in text
    assert "expected int, got 'many' (variable WORKER_MAX_RETRIES)" in text
    assert "expected a number >= 1 or 'auto', got 'two' (file gopher.toml)" in text
    assert "gopher.toml: unknown key worker.colour; expected one of app, queues" in text
    assert "gopher.toml: unknown table 'wrker'; expected store, server" in text
    assert "gopher.toml: store must be a table, [store]" in text


def test_load_says_what_must_be_set() -> None:
    """A worker without an application is told how to name one."""
    with pytest.raises(ConfigError, match=r"--app, GOPHER_APP, worker\.app: must be set"):
        config.load(config.WORKER, flags={}, environ={})


def test_load_masks_passwords_in_faults() -> None:
    """The line about a faulty URL does not hold its password."""
    found = problems({"--redis-url": "http://user:hunter2@host"})

    assert len(found) == 1
    assert "hunter2" not in found[0]


def test_load_leaves_the_sections_of_other_programs_alone() -> None:
    """A variable of the server's that is wrong does not stop a worker."""
    settings = load_worker(environ={"GOPHER_GRPC": "nowhere"}, document={"server": {"grpc_address": "elsewhere"}})

    assert settings.server.grpc_address == "127.0.0.1:50051"


def test_load_reads_typed_values_from_the_file() -> None:
    """A table of queues, numbers and truth values come as TOML has them."""
    document = tomllib.loads("[worker]\nqueues = {a = 2, b = 1}\nlease_seconds = 10\n[telemetry]\ntracing = true\n")

    settings = load_worker(document=document)

    assert settings.worker.queues == {"a": 2, "b": 1}
    assert settings.worker.lease_seconds == 10.0
    assert settings.telemetry.tracing


def test_load_gives_one_flag_to_both_sections_of_dev() -> None:
    """In `gopher dev`, --grace is that of the worker and of the server."""
    settings = config.load(config.DEV, flags={"--grace": "7"}, environ={})

    assert (settings.worker.grace_seconds, settings.server.grace_seconds) == (7.0, 7.0)


def test_describe_settings_can_be_loaded_again() -> None:
    """What --print-config shows is a TOML file that sets the same, with each source in a comment."""
    settings = load_worker({"--queues": "a=2,b=1"}, {"REDIS_URL": "redis://h:1/2", "GOPHER_TRACING": "true"})

    text = config.describe_settings(settings)

    again = config.load(config.WORKER, flags={}, environ={}, document=tomllib.loads(text))
    assert (again.worker, again.store, again.telemetry) == (settings.worker, settings.store, settings.telemetry)
    assert 'queues = "a=2,b=1"  # flag --queues' in text
    assert 'redis_url = "redis://h:1/2"  # variable REDIS_URL' in text
    assert "# redis_db is unset  # default" in text


def test_describe_settings_masks_passwords() -> None:
    """No password is shown, neither the URL's nor the one beside it."""
    environ = {"REDIS_URL": "redis://user:hunter2@h", "REDIS_PASSWORD": "swordfish"}

    text = config.describe_settings(load_worker(environ=environ))

    assert "hunter2" not in text
    assert "swordfish" not in text
    assert 'redis_url = "redis://user:***@h"' in text


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--log-format", "xml", "expected one of json, console, got 'xml'"),
        ("--log-level", "loud", "expected one of debug, info, warning, error, got 'loud'"),
        ("--app", "mail", "expected MODULE:REGISTRY, such as 'shop.jobs:registry', got 'mail'"),
        ("--namespace", "A B", "at most 64 long, such as 'mail.eu', got 'A B'"),
        ("--queues", "A=1", "at most 64 long, such as 'mail.eu', got 'A=1'"),
    ],
)
def test_load_says_what_is_allowed(flag: str, value: str, expected: str) -> None:
    """The choices, or the pattern in words with an example: nobody has to read a regular expression."""
    (found,) = problems({flag: value})

    assert f"{expected} (flag {flag})" in found
    assert "regex" not in found


@pytest.mark.parametrize("section", config.SECTIONS.values())
def test_every_pattern_is_put_into_words(section: type) -> None:
    """A setting with a pattern says in words, with an example, what it takes."""
    for name, _, hint in config.settings_of(section):
        for part in parts(hint):
            if isinstance(part, msgspec.Meta) and part.pattern is not None:
                assert "such as" in (part.description or ""), name


def parts(hint: object) -> list[object]:
    inner = [each for argument in get_args(hint) for each in parts(argument)]
    return [*getattr(hint, "__metadata__", ()), *inner]


@pytest.mark.parametrize("url", ["redis://user:hunter2@h", "unix:///tmp/r.sock?db=1&password=hunter2"])
def test_load_refuses_masked_passwords(url: str) -> None:
    """What --print-config has shown is no password when it is read back: each is named, with where it came from."""
    shown = config.describe_settings(load_worker(environ={"REDIS_URL": url, "REDIS_PASSWORD": "swordfish"}))

    found = problems({}, {}, tomllib.loads(shown))

    masked = "expected the password itself, got the '***' that --print-config shows for it (file gopher.toml)"
    assert found == [
        f"--redis-url, GOPHER_REDIS_URL, REDIS_URL, store.redis_url: {masked}",
        f"GOPHER_REDIS_PASSWORD, REDIS_PASSWORD, store.redis_password: {masked}",
    ]


def test_load_takes_stars_that_are_no_mask() -> None:
    """A password may hold stars, and one of three can be written percent-encoded."""
    settings = load_worker(environ={"REDIS_URL": "redis://u:%2A%2A%2A@h", "REDIS_PASSWORD": "a***"})

    assert (settings.store.redis_url, settings.store.redis_password) == ("redis://u:%2A%2A%2A@h", "a***")


def test_arguments_for_gives_the_same_section_to_another_program() -> None:
    """A child started with these flags has the section whatever its environment says."""
    worker = WorkerConfig(app="a.b:c", queues={"a": 2, "b": 1}, concurrency=3, grace_seconds=1.25, namespace="ns")
    telemetry = config.TelemetryConfig(tracing=True, log_format="console")
    seen: list[Settings] = []

    arguments = [*config.arguments_for(worker), *config.arguments_for(telemetry)]
    program_app(config.WORKER, seen.append)(arguments)

    assert seen[0].worker == worker
    assert seen[0].telemetry == telemetry


def test_read_document_says_why_it_cannot(tmp_path: Path) -> None:
    """A missing file and one that is no TOML are told with flag, variable and path."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[worker\n")

    with pytest.raises(ConfigError, match=r"--config, GOPHER_CONFIG: cannot read .*absent.toml: No such file"):
        config.read_document(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*broken.toml: Expected"):
        config.read_document(broken)


@pytest.mark.parametrize(
    ("flags", "slots"), [({}, (100, 100)), ({"--concurrency": "7"}, (7, 7)), ({"--concurrency": "5-200"}, (5, 200))]
)
def test_load_reads_a_number_or_bounds_of_jobs_at_once(flags: dict[str, str], slots: tuple[int, int]) -> None:
    """A number is both bounds; what is handed on to worker processes is read again as it was."""
    worker = load_worker(flags).worker

    # A switch has no value, and is not one of these.
    arguments = [argument.split("=", 1) for argument in config.arguments_for(worker) if "=" in argument]
    again = load_worker(dict(arguments)).worker

    assert worker.slots == again.slots == slots


def test_load_reads_a_bare_number_and_bounds_of_a_file() -> None:
    """TOML has numbers and text: both are understood."""
    assert load_worker(document={"worker": {"concurrency": 9}}).worker.slots == (9, 9)
    assert load_worker(document={"worker": {"concurrency": "2-9", "processes": "auto"}}).worker.processes == "auto"


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        ("--concurrency", "200-5", "expected MIN-MAX with 1 <= MIN <= MAX <= 100000, got '200-5'"),
        ("--concurrency", "0-5", "expected MIN-MAX with 1 <= MIN <= MAX <= 100000, got '0-5'"),
        ("--concurrency", "1-100001", "expected MIN-MAX with 1 <= MIN <= MAX <= 100000, got '1-100001'"),
        ("--concurrency", "100001", "expected int <= 100000, got '100001'"),
        ("--concurrency", "auto", "expected a number such as 100, or bounds such as '5-200', got 'auto'"),
        ("--concurrency", "-3", "expected a number such as 100, or bounds such as '5-200', got '-3'"),
        ("--concurrency", "5-", "expected a number such as 100, or bounds such as '5-200', got '5-'"),
        ("--processes", "0", "expected int >= 1, got '0'"),
        ("--processes", "257", "expected int <= 256, got '257'"),
        ("--processes", "-1", "expected a number >= 1 or 'auto', got '-1'"),
        ("--processes", "all", "expected a number >= 1 or 'auto', got 'all'"),
        ("--subprocesses", "0", "expected int >= 1, got '0'"),
    ],
)
def test_load_refuses_numbers_of_jobs_and_processes_that_cannot_be(flag: str, value: str, problem: str) -> None:
    """Each is told with what can be."""
    (told,) = problems({flag: value})

    assert told.startswith(flag)
    assert problem in told
