"""Whose turn it is: each queue gets its share of the claims, smoothly, and one that has nothing gets none."""

from __future__ import annotations

from gopher.rotation import Source, next_source, wake


def turns(sources: list[Source], count: int) -> list[str]:
    return [picked.name for _ in range(count) if (picked := next_source(sources)) is not None]


def test_queues_take_turns_by_weight() -> None:
    """In every cycle each has as many as its weight, and the light ones stand between turns of the heavy one."""
    sources = [Source("a", 5), Source("b", 1), Source("c", 1)]

    order = turns(sources, 14)

    assert "".join(order) == "aabacaa" * 2


def test_drained_queue_leaves_its_share_to_the_others() -> None:
    """Until it is woken; with none left there is nothing to claim from."""
    sources = [Source("a", 1), Source("b", 1)]
    sources[0].is_drained = True
    alone = turns(sources, 3)
    sources[1].is_drained = True
    nobody = next_source(sources)

    wake(sources, "a")

    assert (alone, nobody) == (["b", "b", "b"], None)
    assert turns(sources, 2) == ["a", "a"]
    assert [source.wakes for source in sources] == [1, 0]
