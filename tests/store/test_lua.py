"""The rules that every script keeps: its keys lie in one slot, and a full Redis drains."""

from __future__ import annotations

import random
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
import redis
import trio

from gopher.breaker import Breaker, Forced
from gopher.bulk import DEFAULT_STATES, BulkKind, BulkPlan, BulkState
from gopher.errors import StoreError, StoreFullError, WorkerNotFoundError
from gopher.event import EventKind
from gopher.job import JobState, Move, NewJob, Priority
from gopher.limits import Limits, PriorityRatio, RateLimit
from gopher.runtime.scheduler import Scheduler
from gopher.schedule import NewSchedule
from gopher.store import keys
from gopher.store.attachments import Attachment
from gopher.store.breakers import BreakerEnding
from gopher.store.bulk import ClaimedBulk
from gopher.store.bulk_walk import BulkWalk
from gopher.store.families import Member, Start
from gopher.store.leases import Leases
from gopher.store.lifecycle import Bound
from gopher.store.scripts import LUA_DIRECTORY, Script
from gopher.store.socket_directory import open_socket_directory
from gopher.store.store import Store
from gopher.store.submission import SubmitReceipt
from gopher.store.type_set import TypeSet
from tests.redis_server import RedisServer
from tests.store.rig import DELAY_MS, LEASE_MS, SET_CLOCK, Rig, turn_clocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gopher.store.outbox import Child

SCRIPTS: Final = sorted(path.stem for path in LUA_DIRECTORY.glob("*.lua"))
ADD: Final = {"submit", "create_schedule", "start_children", "submit_attached", "deliver_children"}
"""What a full Redis refuses."""

KEYED_CALL: Final = re.compile(r"redis\.call\('(?!time|pubsub')([a-z]+)', *(.)")

RAW_COMMAND: Final = re.compile(r"(?:call\(|\(|_client, )\"([A-Z]{3,})\"")
"""In Python, a command and the parenthesis, or redis-py's client, before it."""

WHOLE: Final = re.compile(r"zrange['\"], .*\b0, -1", re.IGNORECASE)
READ_WHOLE: Final = {"start_bulk.lua": 1, "bulk.py": 1, "schedules.py": 1, "audit_parked.lua": 1}
"""Which sorted sets are read whole: operations, of which few are kept; schedules, which have a limit; names counted where they are few."""

UNKNOWN_ID: Final = "01998c2e-7a00-7000-8000-000000000000"
LONG_MS: Final = 30 * 24 * 3600 * 1000


def free_ports() -> tuple[int, int]:
    """Return two ports that nobody listens at: below those that the system gives to whoever asks for any."""
    for port in random.sample(range(20_000, 32_000, 2), 100):
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port, port + 1
    raise RuntimeError("no two ports are free")


@pytest.fixture
def cluster(redis_program: str) -> Iterator[RedisServer]:
    """A redis-server in cluster mode that serves all slots by itself."""
    port, bus_port = free_ports()
    with open_socket_directory("/tmp", prefix="gopher-tests-") as (directory, _):
        server = RedisServer(redis_program, directory / "redis.sock", directory, persistent=False)
        bus = ["--cluster-enabled", "yes", "--port", str(port), "--bind", "127.0.0.1", "--cluster-port", str(bus_port)]
        server._command = [*server._command, *bus]
        server.start()
        yield server
        server.stop()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the scripts that were called."""
    names: set[str] = set()
    words = Script._words

    def note(self: Script, *args: object) -> object:
        names.add(self.name)
        return words(self, *args)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(Script, "_words", note)
    return names


async def open_rig(url: str, namespace: str, nursery: trio.Nursery) -> Rig:
    store = Store(url, client_name="test")
    await nursery.start(store.run)
    turn_clocks(store.lifecycle, store.audit, store.schedules, store.limits, store.outbox, store.bulk)
    turn_clocks(store.changes, store.families, store.attachments, store.attached_jobs, store.histories)
    rig = Rig(store, namespace)
    await rig.set_clock()
    return rig


def nightly(rig: Rig) -> NewSchedule:
    return NewSchedule(name="nightly", cron="@daily", job=NewJob(type="report", queue=rig.queue, labels={"team": "a"}))


async def fill(rig: Rig) -> list[str]:
    """Submit jobs of every kind, make a schedule, and make a unique key leak."""
    await rig.store.schedules.create(rig.namespace, nightly(rig))
    await rig.store.registry.add_types(rig.namespace, ["email"])
    await rig.call("SET", "unique:leak", UNKNOWN_ID)
    assert await start_child(rig) is None
    await rig.deliver([await keep_child(rig)])
    assert isinstance(await start_attached(rig), SubmitReceipt)
    when = {"deadline_ms": rig.now_ms + LONG_MS}
    ids = [await rig.submit(priority=p, unique_key=p.value, request_id=p.value, **when) for p in Priority]
    ids += [await rig.submit(labels={"n": str(at)}) for at in range(9)]
    ids += [await rig.submit(type="limited", limit_key="k", priority=Priority.LOW) for _ in range(3)]
    return [*ids, await rig.submit(delay_ms=DELAY_MS, **when), await rig.submit(deadline_ms=rig.now_ms + 1)]


async def start_attached(rig: Rig) -> object:
    return await rig.store.attached_jobs.submit(rig.namespace, NewJob(type="email", queue=rig.queue), "call", 1)


async def start_child(rig: Rig) -> object:
    """Start a child of an attempt that is no more."""
    child = Start(Member("1.1.1", UNKNOWN_ID, "cancel", "-"), NewJob(type="email", queue=rig.queue))
    return await rig.store.families.start(rig.namespace, rig.queue, UNKNOWN_ID, 1, [child], "")


async def keep_child(rig: Rig) -> Child:
    """Put the child of a parent that is gone into the outbox."""
    child = await rig.child(UNKNOWN_ID, 1)
    await rig.call("HSET", "outbox", child.id, child.entry)
    return child


async def drain(rig: Rig, url: str) -> None:
    """Call every script but those that add."""
    lifecycle = rig.store.lifecycle
    leases = Leases(url, namespace=rig.namespace, reply_seconds=5)
    leases.beat("worker", b"{}", 1000)
    with pytest.raises(WorkerNotFoundError):
        await rig.store.registry.drain_worker(rig.namespace, "nobody", None)
    leases.beat("worker", b"{}", 0)
    leases.close()
    await rig.store.figures.count(rig.namespace, rig.queue, worker="worker", number=1, fields={"leases_lost": 1})
    assert len(await rig.store.registry.page_secret(rig.namespace)) == 32
    await lifecycle.pause(rig.namespace, "new")
    await rig.advance(1)
    await rig.promote()
    assert await rig.claim(1, types=TypeSet(["foreign"])) == []
    await lifecycle.pass_ring(rig.namespace, rig.queue, ["email"])
    jobs = await rig.claim(10)
    await rig.begin(jobs[0])
    await rig.extend([(job.id, job.token) for job in jobs])
    await rig.say(jobs[0].id, jobs[0].token, "half", EventKind.PROGRESS)
    await rig.open_history(jobs[1].id)
    await rig.cancel(jobs[0].id)
    moves = [Move.ACKNOWLEDGE_CANCEL, Move.COMPLETE, Move.BURY, Move.RETRY, Move.SNOOZE, Move.RELEASE]
    for job, move in zip(jobs, moves, strict=False):
        children = [await rig.child(job.id, job.token)] if move is Move.COMPLETE else []
        await rig.settle(job.id, job.token, move, children=children)
    assert await rig.sweep_outbox() == []
    await rig.requeue(jobs[0].id)
    await lifecycle.delete(rig.namespace, jobs[2].id)
    await lifecycle.pause(rig.namespace, rig.queue)
    await lifecycle.resume(rig.namespace, rig.queue)
    await rig.advance(LEASE_MS + 1)
    await rig.promote()
    await rig.reap()
    assert not await rig.store.queue_sweep.free(rig.namespace, rig.queue)
    await rig.store.registry.add_types(rig.namespace, ["new"])
    assert await rig.store.registry.free_types(rig.namespace) == []
    await rig.store.queue_sweep.inspect(rig.namespace, rig.queue)
    await rig.store.queue_sweep.settle_freed(rig.namespace, 0)
    await rig.store.query.list_jobs(rig.namespace, size=3)
    assert [finding.repaired for finding in await rig.audit(repair=True)] == [True]
    assert await rig.audit() == []
    await work_in_bulk(rig)
    await drain_schedules(rig)
    await drain_limits(rig)
    await drain_breakers(rig)
    await drain_families(rig)
    await rig.store.assignments.resume(rig.namespace, rig.queue, worker="w", session=1, lease_ms=1000, leases=[])
    await lifecycle.purge(rig.namespace, rig.queue)


async def work_in_bulk(rig: Rig) -> None:
    """Call every script of bulk operations: each kind does its work, and one is cancelled."""
    bulk = rig.store.bulk
    for kind in BulkKind:
        started = await bulk.start(
            rig.namespace, BulkPlan(kind=kind, states=DEFAULT_STATES[kind], queue=rig.queue, type="email")
        )
        # The clock stands still, and the operation is to be had in the next ms.
        await rig.store.link.call("EVAL", SET_CLOCK, 1, keys.bulk_running() + ":clock", started.created_ms + 1)
        claimed = await bulk.claim(1000)
        assert isinstance(claimed, ClaimedBulk)
        walk = BulkWalk(rig.store.link, claimed)
        turn_clocks(walk)
        await walk.open()
        while not walk.is_over:
            assert await bulk.keep(claimed, 1000)
            await walk.step()
        await bulk.advance(claimed)
        assert (await bulk.get(rig.namespace, started.id)).state is BulkState.COMPLETED
        await rig.store.link.call("DEL", keys.bulk_running() + ":clock")
    stopped = await bulk.start(rig.namespace, BulkPlan(kind=BulkKind.RETRY, states=(JobState.FAILED,)))
    assert (await bulk.cancel(rig.namespace, stopped.id)).state is BulkState.CANCELLED


async def drain_schedules(rig: Rig) -> None:
    """Call every script of schedules but the one that adds."""
    schedules, where = rig.store.schedules, (rig.namespace, rig.queue)
    await schedules.update(rig.namespace, nightly(rig))
    await schedules.pause(*where, "nightly")
    await schedules.resume(*where, "nightly")
    await schedules.trigger(*where, "nightly")
    await rig.set_clock(int((await schedules.get(*where, "nightly")).next_ms or 0))
    assert await Scheduler(schedules, namespace=rig.namespace, queue=rig.queue).tick() == 0
    assert (await schedules.get(*where, "nightly")).skipped_total == 1
    await schedules.delete(*where, "nightly")


async def drain_breakers(rig: Rig) -> None:
    """Call every script of breakers."""
    breakers = rig.store.breakers
    await breakers.declare(rig.namespace, "smtp", Breaker(failures=1), ["email"])
    admission = await breakers.admit(rig.namespace, "smtp", count=1, permit_seconds=1)
    await breakers.renew(rig.namespace, "smtp", admission.permits, 2)
    await breakers.report(rig.namespace, "smtp", worker="w", report_id="r", endings=[BreakerEnding("f", "")])
    await breakers.force(rig.namespace, "smtp", Forced.OPEN)


async def drain_families(rig: Rig) -> None:
    """Call every script of families and attachments but the one that adds."""
    families, where = rig.store.families, (rig.namespace, rig.queue)
    await rig.store.attachments.attach(Attachment(*where, UNKNOWN_ID, LEASE_MS, lambda: None))
    await families.leave(*where, UNKNOWN_ID, ["1.1.1"])
    await rig.store.changes.watch(*where)
    assert await families.take_orphans(*where) is None
    assert not await rig.store.attached_jobs.abandon(*where, UNKNOWN_ID, "call", reason="", grace_ms=1)


async def drain_limits(rig: Rig) -> None:
    """Call every script of limits, and the claims, moves and checks that they change."""
    rules, where = rig.store.limits, (rig.namespace, rig.queue)
    everything = Limits(rate=RateLimit(1), rate_per_key=RateLimit(9, burst=9), concurrency=1, concurrency_per_key=1)
    for job_type in ("limited", "*"):
        await rules.set_limits(*where, job_type, everything)
    await rules.set_ratio(*where, PriorityRatio(high=1))
    for _ in range(2):
        await rig.claim(9, bounds=[Bound("limited", "bulkhead:limited", 1, 0)])
    await rules.ask_again(*where, ["rate:limited"])
    for job_type in ("limited", "*"):
        await rules.set_limits(*where, job_type, None)


@pytest.mark.parametrize("path", sorted(LUA_DIRECTORY.rglob("*.lua")), ids=lambda path: path.stem)
def test_script_names_no_key_of_its_own(path: Path) -> None:
    """A key is given in KEYS or built from it: none is written out in a script, since it would lie in another slot."""
    calls = KEYED_CALL.findall(path.read_text(encoding="utf-8"))

    assert [command for command, first in calls if first == "'"] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_hides_no_failed_write_and_decodes_no_payload(name: str) -> None:
    """No pcall, which would go on after a failed write; no cjson, which rounds numbers; nothing random."""
    text = Script.load(name).text

    assert re.findall(r"pcall|cjson|cmsgpack|math\.random|randomkey", text) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_in_a_full_redis_unless_it_adds(name: str) -> None:
    """Every script but those that add jobs or schedules carries allow-oom, so that a full Redis still drains."""
    flags = Script.load(name).text.splitlines()[0].partition("flags=")[2].split(",")

    assert ("allow-oom" in flags) == (name not in ADD)


async def test_commands_sent_beside_scripts_run_in_a_full_redis(store: Store) -> None:
    """No command that the store sends by itself is one that Redis refuses at maxmemory."""
    sources = [path.read_text(encoding="utf-8") for path in LUA_DIRECTORY.parent.glob("*.py")]
    commands = sorted({name for source in sources for name in RAW_COMMAND.findall(source)})

    refused = []
    for name in commands:
        (known,) = await store.link.call("COMMAND", "INFO", name)
        if known is not None and b"denyoom" in known[2]:
            refused.append(name)

    assert {"HGETALL", "SPUBLISH", "ZRANGE", "GET"} <= set(commands)
    assert refused == []


async def test_scripts_touch_one_slot_only(
    cluster: RedisServer, namespace: str, nursery: trio.Nursery, called: set[str]
) -> None:
    """All scripts run on a node of a Cluster, which refuses one that touches a key of another slot."""
    rig = await open_rig_on_all_slots(cluster, namespace, nursery)

    await fill(rig)
    await drain(rig, cluster.url)

    assert called == set(SCRIPTS)


async def open_rig_on_all_slots(cluster: RedisServer, namespace: str, nursery: trio.Nursery) -> Rig:
    with redis.Redis.from_url(cluster.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        with trio.fail_after(20):
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):  # noqa: ASYNC110 - Redis tells nobody
                await trio.sleep(0.02)
    return await open_rig(cluster.url, namespace, nursery)


async def test_full_redis_refuses_jobs_and_drains(
    redis_server: RedisServer, namespace: str, nursery: trio.Nursery, called: set[str]
) -> None:
    """At maxmemory a submit and a new schedule are refused as such, and every other script works."""
    rig = await open_rig(redis_server.url, namespace, nursery)
    ids = await fill(rig)
    child = await keep_child(rig)
    called.clear()
    await rig.store.link.call("CONFIG", "SET", "maxmemory", 1)

    with pytest.raises(StoreFullError):
        await rig.store.schedules.create(namespace, nightly(rig))
    with pytest.raises(StoreFullError):
        await start_child(rig)
    with pytest.raises(StoreFullError):
        await start_attached(rig)
    with pytest.raises(StoreFullError):
        await rig.deliver([child])
    await rig.call("HDEL", "outbox", child.id)
    refusal = await refusal_of_a_submit(rig)
    await drain(rig, redis_server.url)

    assert isinstance(refusal, StoreFullError)
    assert called >= set(SCRIPTS)
    await rig.store.link.call("CONFIG", "SET", "maxmemory", 0)
    assert await rig.submit() not in ids


async def refusal_of_a_submit(rig: Rig) -> object:
    try:
        return await rig.try_submit()
    except StoreError as error:
        return error


def test_store_reads_no_sorted_set_whole_that_may_be_of_any_size() -> None:
    """Under per-key limits a queue has hundreds of thousands of names: what is read whole is bounded by a limit of its own."""
    paths = [*LUA_DIRECTORY.rglob("*.lua"), *LUA_DIRECTORY.parent.glob("*.py")]
    whole = {path.name: len(WHOLE.findall(path.read_text(encoding="utf-8"))) for path in paths}

    assert {name: count for name, count in whole.items() if count} == READ_WHOLE
