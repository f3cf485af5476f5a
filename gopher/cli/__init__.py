"""The programs: `gopher` with its commands, `gopher-server` and `gopher-worker`.

In reading order:

- `main`: the commands by name, each loaded only when it is called.
- `target`, `arguments`: the options that commands share, and how their values are written.
- `submit`, `jobs`, `queues`, `admin`: the commands; each talks to the server only, never to Redis.
- `report`, `output`: what is told, and the only place that prints.
- `options`: the flags of the programs that take settings.
- `server`, `worker`, `dev`: the composition roots.
"""
