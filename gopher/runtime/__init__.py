"""The worker.

Reading order:

- `supervisor`: the root nursery, and the drain.
- `claimer` -> `runner` -> `settler`: take jobs, run each, write outcomes. `executors` is how a handler runs; `asyncio_loop` one that
  speaks asyncio; `subprocesses` and `child` are the two ends of one that runs in a process of its own.
- `children`: what handlers submit. `relay`: hands it to its queues once the outcome is written.
- `sizing`: how many slots there are. `machine`: what there is of CPUs and memory.
- `suspects`: jobs that may be what kills their workers, kept apart. `slots`: the Trio tasks that attempts run in.
- `scopes`: what runs now. `keeper`: the thread that keeps its leases.
- `promoter`, `scheduler`, `reaper`, `listener`: due jobs, cron, lost leases and ended retentions, what Redis tells its workers.
  `timekeeper` is the shape of the first two.
- `processes`: the parent of several worker processes. `signals`, `apps`: SIGTERM; finding the application.

It knows neither gRPC nor Redis. Every long-lived task has `async def run()`, which loops over `tick()`; tests call `tick()`.
"""
