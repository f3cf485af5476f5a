"""The rpcs as Trio functions: message in, message out, `GopherError` on refusal. They know no transport.

In reading order:

- `jobs`: submit, get, list, cancel, retry, delete.
- `watch`: wait for a job's end, follow its changes.
- `run`: run a job that is attached to its call.
- `nurseries`, `nursery_session`: run a nursery of jobs for a client.
- `queues`: look at queues and steer them.
- `schedules`: keep cron schedules and steer them.
- `admin`: figures, workers, types, dead letters, the audit.
- `requests`: what a client streams, one by one or as it arrives.
- `pages`: the page tokens of the lists.
- `readiness`: whether Redis is there and set up so that no job is lost.
"""
