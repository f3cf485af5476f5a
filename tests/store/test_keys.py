"""The names of the keys: one hash tag a queue, and no two names alike."""

from __future__ import annotations

from itertools import chain

from gopher.job import JobState, Priority
from gopher.store import keys

TAG = "{acme:mail}"


def all_of_a_queue(namespace: str = "acme", name: str = "mail") -> list[str]:
    return [
        keys.settings(namespace, name),
        keys.counters(namespace, name),
        keys.job(namespace, name, "id"),
        *(keys.enqueued(namespace, name, priority) for priority in Priority),
        *(keys.index(namespace, name, state) for state in JobState if state is not JobState.ENQUEUED),
        keys.deadlines(namespace, name),
        keys.unique(namespace, name, "id"),
        keys.events(namespace, name),
        keys.control(namespace, name),
    ]


def all_of_a_namespace(namespace: str = "acme") -> list[str]:
    return [keys.queues(namespace), keys.types(namespace), keys.types_declared(namespace), keys.workers(namespace)]


def test_keys_of_a_queue_carry_one_hash_tag() -> None:
    """All keys and channels of a queue hash to one slot of a Cluster: the tag is the first pair of braces."""
    names = all_of_a_queue()

    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {TAG}


def test_keys_of_types_lie_in_one_slot() -> None:
    """The tag of the one is the whole other, which has none."""
    name = keys.types_declared("acme")

    assert name[name.index("{") + 1 : name.index("}")] == keys.types("acme")


def test_keys_all_begin_with_gopher() -> None:
    """One pattern, gopher:*, covers what Gopher may touch."""
    names = [*all_of_a_queue(), *all_of_a_namespace(), keys.page_secret()]

    assert all(name.startswith("gopher:") for name in names)


def test_keys_never_collide() -> None:
    """No two kinds, queues or namespaces share a key."""
    names = list(
        chain(
            all_of_a_queue(),
            all_of_a_queue("acme", "mail2"),
            all_of_a_queue("acme2", "mail"),
            all_of_a_namespace(),
            all_of_a_namespace("acme2"),
        )
    )

    assert len(set(names)) == len(names)


def test_indexes_name_each_state_once_and_enqueued_by_priority() -> None:
    """The indexes are one a state, and one a priority for the jobs that are enqueued."""
    found = keys.indexes("acme", "mail")

    expected = {(state, None) for state in JobState if state is not JobState.ENQUEUED}
    assert {(state, priority) for state, priority, _ in found} == expected | {(JobState.ENQUEUED, p) for p in Priority}
    assert {key for _, _, key in found} <= set(all_of_a_queue())


def test_settings_end_as_the_scripts_expect() -> None:
    """The scripts cut the name `settings` off KEYS[1] to get the queue's prefix."""
    settings = keys.settings("acme", "mail")

    assert settings.removesuffix("settings") == keys.queue("acme", "mail")


def test_all_queues_matches_the_keys_of_the_namespaces_queues_only() -> None:
    """The pattern of a namespace neither misses a queue's key nor takes in another namespace's."""
    prefix = keys.all_queues("acme").removesuffix("*")

    assert all(name.startswith(prefix) for name in all_of_a_queue())
    assert not any(name.startswith(prefix) for name in all_of_a_queue("acme2") + all_of_a_namespace())
