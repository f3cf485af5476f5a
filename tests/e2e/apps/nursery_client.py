"""A program that opens a nursery, starts children that wait for a gate, tells their ids and waits: to be killed."""

from __future__ import annotations

import signal
import sys

from gopher.client import Client


def main(address: str, namespace: str, grace: str, gate: str, count: str) -> None:
    """Run the program."""
    with Client(address, namespace=namespace) as client, client.open_nursery(grace=float(grace)) as jobs:
        children = [jobs.start("hold", gate, queue="default") for _ in range(int(count))]
        ids = ",".join(str(child.id) for child in children)
        print(f"ready ids={ids}", flush=True)  # noqa: T201 - read by the test
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
