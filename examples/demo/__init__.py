"""The demo: real jobs from client to result, in ten seconds (`python -m examples.demo`, or `make demo`).

It draws pictures and fills a SQLite database (`inputs`), starts a mail server (`post_office`) and `gopher dev` as a child process
(`product`), submits eight jobs over gRPC (`plan`), follows their status streams on a live table (`board`), lets one be retried and
one become a dead letter that is requeued (`story`), and looks for itself whether all of it is true (`checks`). `show` puts these
together. It uses nothing of Gopher that any other program could not: the command line, `gopher.client`, the app of the examples.
"""
