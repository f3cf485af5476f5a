"""What crosses the network: messages and statuses, and the values and errors that they stand for.

In reading order:

- `status`: the one table from errors to gRPC codes, read by the server and, the other way round, by the clients; HTTP statuses and
  exit codes derive from it.
- `check`: what a field must hold, and the collector that names every fault of a message at once.
- `submission`: a `JobSpec`, checked, becomes a `NewJob`.
- `schedules`: a schedule, there and back.
- `convert`: every other value becomes a message, and back. Here, in `submission` and in `schedules` alone a `Duration` or `Timestamp` turns into ms.
"""
