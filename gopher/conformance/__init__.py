"""Tries an implementation of WorkerService, in whatever language: `python -m gopher.conformance -- COMMAND...`.

It runs a Redis and servers of its own, starts the command as a worker, gives it jobs of agreed types, and cuts, silences and kills what
lies between. docs/workers-in-any-language.md tells what a worker has to do.

- `__main__`: the command line, and the table of results.
- `checks`: what is tried.
- `stage`: what a check plays on: two servers, a proxy before each, and the worker under test.
- `proxy`: cuts and silences connections.
- `programs`: child processes.
"""
