"""The benchmark harness: what Gopher's speed and memory are, beside its peers, in one run on one machine.

Reading order: `__main__` (the command), `plan` (how much of each), `run` (the order of the measurements), `systems` (who is
measured), then one file a question: `drain`, `submit`, `latency`, `memory`, `idle`, `yardstick`. `children` and `servers` start
and end the processes; `client` is the command line that every measured client program answers; `app`, `store_client`,
`grpc_client`, `grpc_load` and `echo_server` are Gopher's side, `peers/` the others'. `targets`, `report` and `machine` make the
table and the JSON. The README says how to read the numbers.
"""
