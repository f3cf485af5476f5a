"""What handler authors write against: the registry of handlers, and the verdicts.

A handler is called as `handler(job, payload)`. An `async def` runs on Trio in the attempt's own cancel scope; a plain `def` runs in
a thread; `process=True` runs it in a subprocess that a cancel ends with all its children; `asyncio=True` runs an `async def` that
speaks asyncio in an event loop of its own. What it returns is the job's result, and must be JSON.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, Never, TypeAlias, TypeVar, cast

import msgspec

from gopher.contexts import AttemptInfo
from gopher.errors import PayloadMismatchError
from gopher.job import JSON_CONTENT_TYPE, NAME_EXAMPLE, REASON_EXAMPLE, REASON_PATTERN, STATUS_CODES
from gopher.limits import Limits, RateLimit
from gopher.retry import MAX_ATTEMPTS_LIMIT, RetryPolicy
from gopher.surroundings import Surroundings

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping

    from gopher.breaker import Breaker

NAME_PATTERN: Final = r"[a-z][a-z0-9_.-]{0,63}"
"""Of types, queues and namespaces: no character of it means anything to Redis."""
_NAME: Final = re.compile(NAME_PATTERN)

LONGEST_DELAY_SECONDS: Final = 3650 * 24 * 3600
"""Ten years, as for a submit's delay: beyond any honest plan, and far below where Redis loses a ms."""

Function: TypeAlias = Callable[[Never, Never], object]
"""Any callable of two arguments, whatever types it wants them to be."""
Coroutine: TypeAlias = Callable[[AttemptInfo, object], Awaitable[object]]
PlainFunction: TypeAlias = Callable[[AttemptInfo, object], object]
FunctionT = TypeVar("FunctionT", bound=Function)


class Executor(Enum):
    """Where a handler runs."""

    TRIO = "trio"
    THREAD = "thread"
    PROCESS = "process"
    ASYNCIO = "asyncio"


class ThreadPolicy(Enum):
    """What becomes of a handler's thread that goes on when the grace of a cancel or a time-out is over."""

    WAIT = "wait"
    ABANDON = "abandon"


class Retry(Exception):
    """Raise it for another attempt, as after a failure, but after a delay of one's own choosing.

    Args:
        after: Delay in seconds, 0 to ten years; None leaves it to the retry policy.
        message: Kept with the attempt.

    Raises:
        ValueError: The delay is out of range.
    """

    def __init__(self, message: str = "the handler asked for a retry", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = None if after is None else _delay("Retry", after)


class Snooze(Exception):
    """Raise it to be run again later; no attempt is spent.

    Args:
        seconds: How much later, 0 to ten years.

    Raises:
        ValueError: The delay is out of range.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"snoozed for {seconds} s")
        self.seconds = _delay("Snooze", seconds)


class Discard(Exception):
    """Raise it to fail the job at once, whatever attempts are left.

    Args:
        reason: Kept as the failure's message.
    """


class StatusError(Exception):
    """Raise it to say in gRPC's words why the attempt failed; another attempt follows as after any failure.

    Args:
        code: Name of a gRPC status code but OK, as `UNAVAILABLE`.
        message: For people; cut after 1 KiB.
        reason: UPPER_SNAKE, for machines: what a job's `non_retryable_reasons` names.
        retry_after: Seconds until the next attempt, 0 to ten years, in place of the backoff; None leaves it to the retry policy.
        metadata: Facts for machines.

    Raises:
        ValueError: The code, the reason or the delay is none.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "HANDLER_RAISED",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if code not in STATUS_CODES[1:]:
            raise ValueError(f"the code of StatusError must be one of {', '.join(STATUS_CODES[1:])}, not {code!r}")
        if re.fullmatch(REASON_PATTERN, reason) is None:
            raise ValueError(f"the reason of StatusError must match {REASON_PATTERN}, as {REASON_EXAMPLE} does, not {reason!r}")
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after = None if retry_after is None else _delay("StatusError", retry_after)
        self.metadata = dict(metadata or {})


def _delay(verdict: str, seconds: float) -> float:
    # Asked this way round, since NaN is not below anything either.
    if not 0 <= seconds <= LONGEST_DELAY_SECONDS:
        raise ValueError(f"the delay of {verdict} must be 0 to {LONGEST_DELAY_SECONDS} s, not {seconds}")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSpec:
    """A handler as it was registered.

    Attributes:
        type: The jobs it runs.
        function: What is called; `as_plain` where it is no `async def`.
        executor: Where.
        max_attempts: For jobs that do not say otherwise; None leaves it to the worker.
        retry_policy: For its backoff, likewise.
        timeout_seconds: Longest run of an attempt, for jobs that do not say otherwise; None for no limit.
        decode: Makes the payload of a JSON job; raises `msgspec.ValidationError`.
        takes_bytes: Whether the handler wants the payload as it came.
        limits: What holds its jobs back, in each queue, all workers together, where no operator has set limits.
        breaker: That its dependency has; None for none.
        bulkhead: Attempts that a worker runs at once; None for as many as it has slots.
        non_retryable: Errors that end the job, whatever attempts are left.
        on_cancel: Of a thread.
    """

    type: str
    function: Coroutine
    executor: Executor
    max_attempts: int | None
    retry_policy: RetryPolicy
    timeout_seconds: float | None
    decode: Callable[[bytes], object]
    takes_bytes: bool
    limits: Limits
    breaker: Breaker | None
    bulkhead: int | None
    non_retryable: tuple[builtins.type[BaseException], ...]
    on_cancel: ThreadPolicy

    @property
    def name(self) -> str:
        """The function, by module and name."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def file(self) -> str | None:
        """Where the function is written; None where Python does not tell."""
        code = getattr(self.function, "__code__", None)
        return None if code is None else code.co_filename

    @property
    def is_coroutine(self) -> bool:
        """Whether the function is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def as_plain(self) -> PlainFunction:
        """The function, where it is no `async def`."""
        return cast("PlainFunction", self.function)

    def read_payload(self, payload: bytes, content_type: str) -> object:
        """Return the payload as the handler wants it.

        Raises:
            PayloadMismatchError: It does not fit; the message has the path of the field.
        """
        if self.takes_bytes:
            return payload
        if content_type != JSON_CONTENT_TYPE:
            raise PayloadMismatchError(f"the handler of {self.type!r} wants JSON, the payload is {content_type}")
        try:
            return self.decode(payload)
        except msgspec.MsgspecError as error:
            raise PayloadMismatchError(f"the payload does not fit the handler of {self.type!r}: {error}") from error


class Registry(Surroundings):
    """The handlers of an application, by type, and what is around them."""

    def __init__(self) -> None:
        super().__init__()
        self._specs: dict[str, HandlerSpec] = {}

    def handler(
        self,
        type: str,  # noqa: A002 - the word for it everywhere
        *,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        backoff_initial_seconds: float = 1.0,
        backoff_max_seconds: float = 3600.0,
        backoff_multiplier: float = 2.0,
        process: bool = False,
        asyncio: bool = False,
        rate_limit: str | RateLimit | None = None,
        rate_limit_per_key: str | RateLimit | None = None,
        concurrency_limit: int | None = None,
        concurrency_limit_per_key: int | None = None,
        breaker: Breaker | None = None,
        bulkhead: int | None = None,
        non_retryable: tuple[type[BaseException], ...] = (),
        on_cancel: Literal["wait", "abandon"] = "wait",
    ) -> Callable[[FunctionT], FunctionT]:
        """Register the decorated function as the handler of a type.

        Args:
            type: `[a-z][a-z0-9_.-]*`, at most 64 characters.
            max_attempts: The first run plus retries, 1 to 100; None leaves it to the worker's `--max-retries`.
            timeout_seconds: Longest run of one attempt; None for no limit.
            backoff_initial_seconds: Upper end of the first delay between attempts.
            backoff_max_seconds: Cap of every delay.
            backoff_multiplier: Growth of the upper end.
            process: Run it in a subprocess.
            asyncio: Run it in an asyncio event loop.
            rate_limit: Starts a period, all workers of a queue together: `100/s`, `10/m`, `5/h`, `1/d`.
            rate_limit_per_key: The same for each `limit_key`.
            concurrency_limit: Jobs processing at once, all workers of a queue together.
            concurrency_limit_per_key: The same for each `limit_key`.
            breaker: Holds the jobs back while the dependency fails.
            bulkhead: Attempts that one worker runs at once.
            non_retryable: Errors that end the job, whatever attempts are left.
            on_cancel: Of a handler in a thread that goes on when the grace of a cancel or a time-out is over: `wait` for it, which
                holds its slot and its job, or `abandon` it, which leaves it running and ends the attempt.

        Raises:
            ValueError: What was given cannot work; the message says why.
        """
        policy = RetryPolicy(
            backoff_initial_seconds=backoff_initial_seconds,
            backoff_max_seconds=backoff_max_seconds,
            backoff_multiplier=backoff_multiplier,
        )
        _check_numbers(type, policy, max_attempts, timeout_seconds)
        if bulkhead is not None and bulkhead < 1:
            raise ValueError(f"bulkhead of {type!r} must be at least 1, not {bulkhead}")
        limits = Limits(
            rate=_rate(rate_limit),
            rate_per_key=_rate(rate_limit_per_key),
            concurrency=concurrency_limit,
            concurrency_per_key=concurrency_limit_per_key,
        )

        def register(function: FunctionT) -> FunctionT:
            if type in self._specs:
                raise ValueError(f"the type {type!r} has a handler already: {self._specs[type].function}")
            hint = _payload_hint(function)
            self._specs[type] = HandlerSpec(
                type=type,
                function=cast("Coroutine", function),
                executor=(executor := _executor(function, process=process, asyncio=asyncio)),
                max_attempts=max_attempts,
                retry_policy=policy,
                timeout_seconds=timeout_seconds,
                decode=msgspec.json.Decoder(hint).decode,
                takes_bytes=hint is bytes,
                limits=limits,
                breaker=breaker,
                bulkhead=bulkhead,
                non_retryable=non_retryable,
                on_cancel=_on_cancel(type, on_cancel, executor),
            )
            return function

        return register

    def register_handler(self, type: str, function: Function) -> None:  # noqa: A002 - the word for it everywhere
        """Register a function as the handler of a type, all else at its default."""
        self.handler(type)(function)

    def get(self, type: str) -> HandlerSpec | None:  # noqa: A002 - the word for it everywhere
        """Return the handler of a type; None when there is none."""
        return self._specs.get(type)

    @property
    def specs(self) -> list[HandlerSpec]:
        """The handlers, by type."""
        return [self._specs[job_type] for job_type in self.types]

    @property
    def types(self) -> list[str]:
        """The types that have a handler, sorted."""
        return sorted(self._specs)


def _rate(said: str | RateLimit | None) -> RateLimit | None:
    return RateLimit.parse(said) if isinstance(said, str) else said


def _check_numbers(job_type: str, policy: RetryPolicy, max_attempts: int | None, timeout_seconds: float | None) -> None:
    if _NAME.fullmatch(job_type) is None:
        raise ValueError(f"the type {job_type!r} must match {NAME_PATTERN}, as {NAME_EXAMPLE} does")
    if max_attempts is not None and not 1 <= max_attempts <= MAX_ATTEMPTS_LIMIT:
        raise ValueError(f"max_attempts of {job_type!r} must be 1 to {MAX_ATTEMPTS_LIMIT}, not {max_attempts}")
    # All asked this way round, since NaN is neither below nor above anything.
    if not 0 < policy.backoff_initial_seconds <= policy.backoff_max_seconds <= LONGEST_DELAY_SECONDS:
        raise ValueError(
            f"the backoff of {job_type!r} must be 0 < backoff_initial_seconds <= backoff_max_seconds <= {LONGEST_DELAY_SECONDS}"
        )
    if not policy.backoff_multiplier >= 1:
        raise ValueError(f"backoff_multiplier of {job_type!r} must be at least 1, not {policy.backoff_multiplier}")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds of {job_type!r} must be more than 0, not {timeout_seconds}")


def _executor(function: Function, *, process: bool, asyncio: bool) -> Executor:
    is_coroutine = inspect.iscoroutinefunction(function)
    if process and asyncio:
        raise ValueError(f"{function} cannot be both process=True and asyncio=True")
    if asyncio:
        if not is_coroutine:
            raise ValueError(f"{function} must be an async def to run on asyncio")
        return Executor.ASYNCIO
    if process:
        return Executor.PROCESS
    return Executor.TRIO if is_coroutine else Executor.THREAD


def _on_cancel(job_type: str, said: str, executor: Executor) -> ThreadPolicy:
    if said not in {each.value for each in ThreadPolicy}:
        raise ValueError(f"on_cancel of {job_type!r} must be 'wait' or 'abandon', not {said!r}")
    if said == ThreadPolicy.ABANDON.value and executor is not Executor.THREAD:
        raise ValueError(f"on_cancel='abandon' of {job_type!r} is for a plain def in a thread: all else can be ended")
    return ThreadPolicy(said)


def _payload_hint(function: Function) -> object:
    """Return the type of the second parameter; with no annotation, any JSON value.

    Only that annotation is resolved: the others may name what is imported for the type checker alone.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < 2:
        raise ValueError(f"{function} must take two arguments: the job and its payload")
    if parameters[1].annotation is inspect.Parameter.empty:
        return object
    alone = types.SimpleNamespace(__annotations__={"payload": parameters[1].annotation})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hint: object = typing.get_type_hints(alone, names)["payload"]
    except NameError as error:
        raise ValueError(
            f"the payload's annotation of {function} cannot be resolved: {error}; it must be importable when the module runs"
        ) from error
    return hint
