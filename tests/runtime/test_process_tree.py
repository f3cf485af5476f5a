from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio

from gopher.runtime.process_tree import descendants, kill_tree
from tests.waiting import runs, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

NEST = "setsid sh -c 'sleep 600 & echo $$ $!; wait' & wait"


def test_tree_is_found_and_ended_whole() -> None:
    """Children of children are found, in whatever session they are, and all end with their root."""
    with subprocess.Popen(["/bin/sh", "-c", NEST], stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        below = [int(pid) for pid in root.stdout.readline().split()]
        found = descendants(root.pid)
        kill_tree(root.pid)

    assert set(below) <= set(found)
    assert found.index(below[0]) < found.index(below[1])
    trio.run(until, lambda: not any(runs(pid) for pid in found))


def test_tree_of_nobody_is_empty() -> None:
    """Whoever has ended has nothing below, and to end it changes nothing."""
    child = subprocess.Popen(["/bin/true"])
    child.wait()

    kill_tree(child.pid)

    assert descendants(child.pid) == []
    assert os.getpid() not in descendants(os.getpid())
