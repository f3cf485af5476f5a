"""Redis and nothing but Redis.

Reading order:

- `keys`, `ids`, `codec`: the name of every key, the ids of jobs, a job as the fields of a hash.
- `lifecycle` and `lua/`: the moves of a job, one script a verb; `lua/lib/` holds what scripts share.
- `submission`, `outbox`: a submit as the scripts take it; the jobs that an attempt has submitted, on their way to their queues.
- `attachments`, `attached_jobs`: what lives no longer than a client.
- `schedules`, `schedule_record`: cron schedules, and the firings that make jobs.
- `query`, `registry`, `events`, `audit`: look, look names up, follow changes, prove that every job is in exactly one place.
- `leases`: the keeper thread's way to Redis.
- `scripts`, `link`, `pipeline`, `transport`, `resp`: how a script is called, and the connection below it.
- `embedded`: a redis-server of our own.
- `store`: all of it on one connection, as servers and workers hold it.

What must hold when two workers act at once is in Lua. Moments are ms since the epoch by the clock of Redis, the one clock for all.
"""
