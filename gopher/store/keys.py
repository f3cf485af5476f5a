"""The name of every key and channel, one function each.

All keys of a queue carry the hash tag `{namespace:queue}`, so that each script touches one slot of a Cluster and queues spread
over it by themselves.
"""

from __future__ import annotations

from gopher.job import JobState, Priority


def queue(namespace: str, name: str) -> str:
    """Return the prefix of all keys of a queue."""
    return f"gopher:{{{namespace}:{name}}}:"


def all_queues(namespace: str) -> str:
    """Return the pattern that matches the keys of every queue, for SCAN."""
    return f"gopher:{{{namespace}:*"


def settings(namespace: str, name: str) -> str:
    """Return the key of what operators set: a hash. It is KEYS[1] of every script of the queue."""
    return queue(namespace, name) + "settings"


def counters(namespace: str, name: str) -> str:
    """Return the key of what the scripts count: a hash."""
    return queue(namespace, name) + "counters"


def figures(namespace: str, name: str) -> str:
    """Return the key of what the workers have measured since the first job: a hash."""
    return queue(namespace, name) + "figures"


def figures_of_minute(namespace: str, name: str, minute: int) -> str:
    """Return the key of what they have measured in a minute, told by its number since the epoch: a hash."""
    return f"{queue(namespace, name)}figures:{minute}"


def ring(namespace: str, name: str, worker: str) -> str:
    """Return the channel on which an idle worker of a queue is told that there is a job for it."""
    return f"{queue(namespace, name)}ring:{worker}"


def foreign(namespace: str, name: str) -> str:
    """Return the key of the types of which jobs wait that some worker has met and lacks: a set."""
    return queue(namespace, name) + "foreign"


def answer(namespace: str, name: str, question: str) -> str:
    """Return the channel on which a worker of a queue answers a server's question."""
    return f"{queue(namespace, name)}answer:{question}"


def last_claim(namespace: str, name: str, worker: str) -> str:
    """Return the key of what a worker's last claim took: text, the claim's id, then id and token of each job."""
    return f"{queue(namespace, name)}claim:{worker}"


def job(namespace: str, name: str, job_id: str) -> str:
    """Return the key of a job's record: a hash."""
    return f"{queue(namespace, name)}job:{job_id}"


def history(namespace: str, name: str, job_id: str) -> str:
    """Return the key of what is kept of a job's events: a stream; it goes with the record."""
    return f"{queue(namespace, name)}history:{job_id}"


def enqueued(namespace: str, name: str, priority: Priority) -> str:
    """Return the key of a line: a sorted set of ids by the moment they were enqueued, ms."""
    return f"{queue(namespace, name)}enqueued:{priority.value}"


def index(namespace: str, name: str, state: JobState) -> str:
    """Return the key of a state's index, not for `enqueued`: a sorted set of ids.

    The score is ms since the epoch: the run time of scheduled and retrying jobs, the end of the lease of processing ones, the end
    of the retention of final ones.
    """
    return queue(namespace, name) + state.value


def indexes(namespace: str, name: str) -> list[tuple[JobState, Priority | None, str]]:
    """Return every index of a queue: its state, its priority if it is a line, its key."""
    found: list[tuple[JobState, Priority | None, str]] = []
    for state in JobState:
        if state is JobState.ENQUEUED:
            found += [(state, p, enqueued(namespace, name, p)) for p in Priority]
        else:
            found.append((state, None, index(namespace, name, state)))
    return found


def parked(namespace: str, name: str) -> str:
    """Return the key of what holds jobs back: a sorted set of names by the moment from which to ask again, ms or `inf`."""
    return queue(namespace, name) + "parked"


def parked_line(by: str, priority: Priority) -> str:
    """Return the name of a line of the jobs that are held back, without the queue's prefix: as `enqueued`, below `parked`."""
    return f"parked:{by}:{priority.value}"


def limits(namespace: str, name: str) -> str:
    """Return the key of the rules of a queue's limits: a hash by type; `declared:TYPE` is what a handler says, `*` the queue."""
    return queue(namespace, name) + "limits"


def deadlines(namespace: str, name: str) -> str:
    """Return the key of the waiting jobs that have a deadline: a sorted set of ids by that moment, ms."""
    return queue(namespace, name) + "deadlines"


def request(namespace: str, name: str, request_id: str) -> str:
    """Return the key that holds the id of the job which a request id was used for; it ends by itself."""
    return f"{queue(namespace, name)}request:{request_id}"


def unique(namespace: str, name: str, unique_key: str) -> str:
    """Return the key that holds the id of the job which holds a unique key."""
    return f"{queue(namespace, name)}unique:{unique_key}"


def outbox(namespace: str, name: str) -> str:
    """Return the key of the children that have still to be handed to their queues: a hash by id, each as `store.outbox` packs it."""
    return queue(namespace, name) + "outbox"


def family(namespace: str, name: str, parent_id: str) -> str:
    """Return the key of the children that a job's attempts have started and that have not ended, as `store.families` has it: a hash."""
    return f"{queue(namespace, name)}family:{parent_id}"


def orphans(namespace: str, name: str) -> str:
    """Return the key of the parents that have left a family: a sorted set of ids by when to look after it, ms."""
    return queue(namespace, name) + "orphans"


def attached(namespace: str, name: str) -> str:
    """Return the key of what is attached to clients: a sorted set of ids by the moment until which each stands, ms."""
    return queue(namespace, name) + "attached"


def changes(namespace: str, name: str) -> str:
    """Return the key of all changes of a queue's jobs, kept while somebody follows them: a stream; it ends by itself."""
    return queue(namespace, name) + "changes"


def assigned(namespace: str, name: str, worker: str) -> str:
    """Return the key of what a worker on a stream was assigned: a hash, id of the job -> token, and the session that claims."""
    return f"{queue(namespace, name)}assigned:{worker}"


def schedules(namespace: str, name: str) -> str:
    """Return the key of the schedules of a queue: a sorted set of names by the moment they are due, ms; `inf` for those paused."""
    return queue(namespace, name) + "schedules"


def schedule(namespace: str, name: str, schedule_name: str) -> str:
    """Return the key of a schedule's record: a hash."""
    return f"{queue(namespace, name)}schedule:{schedule_name}"


def events(namespace: str, name: str) -> str:
    """Return the channel of a queue's changes, read by servers."""
    return queue(namespace, name) + "events"


def control(namespace: str, name: str) -> str:
    """Return the channel on which workers are told to wake up or to cancel."""
    return queue(namespace, name) + "control"


def breakers(namespace: str) -> str:
    """Return the key of the names of the breakers known: a set."""
    return f"gopher:{namespace}:breakers"


def breaker(namespace: str, name: str) -> str:
    """Return the key of a breaker: a hash. Its permits, reports and channel begin with it."""
    return f"gopher:{{{namespace}:breaker:{name}}}"


def queues(namespace: str) -> str:
    """Return the key of the queues known: a hash, name -> number and #number -> name."""
    return f"gopher:{namespace}:queues"


def types(namespace: str) -> str:
    """Return the key of the types known: a set."""
    return f"gopher:{namespace}:types"


def types_declared(namespace: str) -> str:
    """Return the key of when each type was declared last: a sorted set, in the slot of the types known."""
    return f"gopher:declared:{{{types(namespace)}}}"


def workers(namespace: str) -> str:
    """Return the key of the register of workers: a hash by id."""
    return f"gopher:{namespace}:workers"


def namespaces() -> str:
    """Return the key of the namespaces in which queues were named: a set."""
    return "gopher:namespaces"


def data_id() -> str:
    """Return the key of the random id that Redis keeps for as long as its data."""
    return "gopher:data_id"


def page_secret() -> str:
    """Return the key of the secret that page tokens are signed with, in whichever namespace: bytes."""
    return "gopher:page_secret"


def bulk_running() -> str:
    """Return the key of the bulk operations that run, of all namespaces: a sorted set of `namespace id`.

    The score is the moment from which any server may take one up, ms. The hash tag `{bulk}` is no queue's: those have a colon.
    """
    return "gopher:{bulk}:running"


def bulk_started() -> str:
    """Return the channel on which servers hear of a new bulk operation."""
    return "gopher:{bulk}:started"


def bulk_operations(namespace: str) -> str:
    """Return the key of the bulk operations kept of a namespace: a sorted set of ids by the moment of their start, ms."""
    return f"gopher:{{bulk}}:of:{namespace}"


def bulk_operation(namespace: str, operation_id: str) -> str:
    """Return the key of a bulk operation's record: a hash."""
    return f"{bulk_operations(namespace)}:{operation_id}"


def bulk_progress(namespace: str, name: str, operation_id: str) -> str:
    """Return the key of how far a bulk operation has come in a queue: a hash."""
    return f"{queue(namespace, name)}bulk:{operation_id}"
