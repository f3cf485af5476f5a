"""The commands about what holds jobs back: rate-limit, breakers, update-queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import Parameter

from gopher.cli import output
from gopher.cli.queues import queue_object, tell_queues
from gopher.cli.report import NOTHING, limits_words, short_moment
from gopher.cli.target import DEFAULT_TARGET, Target
from gopher.errors import BreakerNotFoundError, invalid
from gopher.limits import PERIODS, Limits, PriorityRatio, RateLimit
from gopher.wire.shape import breaker_object, rule_object

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gopher.client.values import Breaker, LimitRule

Queue = Annotated[str, Parameter(["--queue", "-q"])]
Per = Literal["s", "m", "h", "d"]
T = TypeVar("T")


def rate_limit(
    job_type: str,
    /,
    *,
    queue: Queue = "default",
    limit: int | None = None,
    burst: int | None = None,
    per: Per = "s",
    limit_per_key: int | None = None,
    burst_per_key: int | None = None,
    concurrency: int | None = None,
    concurrency_per_key: int | None = None,
    remove: Annotated[bool, Parameter(negative=())] = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Limit how many jobs of a type start or run, all workers together; with no limit given, show the limits that hold.

    What is set here holds whole, before what the handler declares: gopher rate-limit email --limit 100 --burst 20

    Args:
        job_type: Of the jobs.
        queue: Where; limits hold in one queue.
        limit: Starts a period: never more in any stretch of time as long.
        burst: Makes it a token bucket of this size, which the limit refills.
        per: The period: second, minute, hour or day.
        limit_per_key: As --limit, for the jobs of each --limit-key.
        burst_per_key: As --burst, for each key.
        concurrency: Jobs processing at once.
        concurrency_per_key: As --concurrency, for each key.
        remove: Let what the handler declares hold again.
        target: Which server, and how to answer.
    """
    wanted = Limits(
        rate=_rate("--limit", limit, per, burst),
        rate_per_key=_rate("--limit-per-key", limit_per_key, per, burst_per_key),
        concurrency=_count("--concurrency", concurrency),
        concurrency_per_key=_count("--concurrency-per-key", concurrency_per_key),
    )
    if remove and wanted:
        raise invalid("--remove", "CONFLICT", "takes no limits beside it")
    with target.connect() as client:
        if remove or wanted:
            rule = client.set_limits(job_type, None if remove else wanted, queue=queue)
        else:
            rule = _find(job_type, client.limits(queue=queue).rules)
    if target.json:
        output.json_line(rule_object(rule.type, queue, rule.set_limits, rule.declared))
    else:
        output.line(limits_words(rule.set_limits if rule.set_limits is not None else rule.declared or Limits()))


def breakers(
    name: str | None = None,
    /,
    *,
    order: Annotated[Literal["open", "closed", "automatic"] | None, Parameter("--control")] = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List the circuit breakers, or steer one.

    A breaker that is ordered open holds the jobs of its types back: gopher breakers smtp --control open

    Args:
        name: Which to steer, or to show alone.
        order: Hold it open or closed whatever attempts say; automatic: let them decide.
        target: Which server, and how to answer.
    """
    if order is not None and name is None:
        raise invalid("NAME", "REQUIRED", "must be given with --control")
    with target.connect() as client:
        found = client.breakers() if name is None or order is None else [client.update_breaker(name, order)]
    if name is not None:
        found = [each for each in found if each.name == name]
        if not found:
            raise BreakerNotFoundError(name)
    _tell_breakers(found, as_json=target.json)


def update_queue(
    queue: str,
    /,
    *,
    ratio: str | None = None,
    limit: int | None = None,
    burst: int | None = None,
    per: Per = "s",
    concurrency: int | None = None,
    no_limits: Annotated[bool, Parameter(negative=())] = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change how a queue's claims are shared among its priorities, or limit the queue as a whole.

    Args:
        queue: Which; one not yet used is created.
        ratio: HIGH:NORMAL:LOW, as 3:2:1, each 1 to 100.
        limit: Starts a period, of all types together.
        burst: Makes it a token bucket of this size, which the limit refills.
        per: The period: second, minute, hour or day.
        concurrency: Jobs processing at once, of all types together.
        no_limits: Take its limits away.
        target: Which server, and how to answer.
    """
    limits = Limits(rate=_rate("--limit", limit, per, burst), concurrency=_count("--concurrency", concurrency))
    if no_limits and limits:
        raise invalid("--no-limits", "CONFLICT", "takes no limits beside it")
    if ratio is None and not limits and not no_limits:
        raise invalid("--ratio", "REQUIRED", "give --ratio, --limit, --concurrency or --no-limits: there is nothing to change")
    with target.connect() as client:
        told = client.update_queue(
            queue, priority_ratio=None if ratio is None else _ratio(ratio), limits=limits if limits or no_limits else None
        )
    if target.json:
        output.json_line(queue_object(told))
    else:
        tell_queues([told])


def _rate(option: str, count: int | None, per: str, burst: int | None) -> RateLimit | None:
    burst_option = option.replace("limit", "burst")
    if count is None:
        if burst is not None:
            raise invalid(burst_option, "CONFLICT", f"needs {option} beside it")
        return None
    _refuse_unless(option, lambda: RateLimit(count))
    return _refuse_unless(burst_option, lambda: RateLimit(count, PERIODS[per], burst or 0))


def _count(option: str, count: int | None) -> int | None:
    return _refuse_unless(option, lambda: Limits(concurrency=count)).concurrency


def _refuse_unless(option: str, make: Callable[[], T]) -> T:
    """Return what is made; what cannot work is the option's fault."""
    try:
        return make()
    except ValueError as error:
        raise invalid(option, "OUT_OF_RANGE", str(error)) from error


def _ratio(text: str) -> PriorityRatio:
    try:
        high, normal, low = map(int, text.split(":"))
        return PriorityRatio(high=high, normal=normal, low=low)
    except ValueError as error:
        raise invalid("--ratio", "OUT_OF_RANGE", f"must be HIGH:NORMAL:LOW, each 1 to 100, as 3:2:1; got {text!r}") from error


def _find(job_type: str, rules: Sequence[LimitRule]) -> LimitRule:
    from gopher.client.values import LimitRule

    return next((rule for rule in rules if rule.type == job_type), LimitRule(type=job_type, set_limits=None, declared=None))


def _tell_breakers(found: Sequence[Breaker], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            output.json_line(
                breaker_object(
                    name=each.name,
                    state=each.state,
                    forced=each.forced,
                    failures=each.failures,
                    reopen_ms=each.reopen_ms,
                    permits=each.permits,
                    opened_total=each.opened_total,
                    types=each.types,
                )
            )
        return
    output.table(
        ("BREAKER", "STATE", "CONTROL", "FAILURES", "PERMITS", "OPENED", "PROBES AT", "TYPES"),
        (
            (
                each.name,
                each.state,
                "automatic" if each.forced is None else f"forced {each.forced}",
                str(each.failures),
                str(each.permits),
                str(each.opened_total),
                short_moment(each.reopen_ms) if each.reopen_ms else NOTHING,
                ", ".join(each.types),
            )
            for each in found
        ),
        spare=("PROBES AT", "OPENED", "PERMITS", "FAILURES"),
    )
