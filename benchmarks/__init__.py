"""The benchmark harness: what Gopher's speed and memory are, beside its peers, in one run on one machine.

Reading order: `__main__` (the command), `plan` (how much of each), `run` (the order of the measurements), `systems` (who is
measured), then one file a question, in the order of the README's table. `children` and `servers` start and end the processes;
`client` is the command line that every measured client program answers; `app`, `preload`, `store_client`, `grpc_client`,
`grpc_load`, `grpc_watchers` and `echo_server` are Gopher's side, `peers/` the others'. `targets`, `report` and `machine` make the
table and the JSON. The README says how to read the numbers.
"""
