"""What is wrong with a field of a request, told in the words of the command line: `--retries`, not `job.retry_policy.max_attempts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App
    from cyclopts.argument import Argument

    from gopher.errors import InvalidRequestError

_OPTION_OF: Final = {
    "max_attempts": "retries",
    "run_time": "at",
    "labels": "label",
    "non_retryable_reasons": "non-retryable",
    "root_id": "root",
    "states": "state",
    "kinds": "kind",
    "page_size": "limit",
}
"""Where a field's option has another name."""


def told(fault: InvalidRequestError, app: App, argv: Sequence[str]) -> str:
    """Return what is wrong, each field by the option that stands for it in the command, as it was typed.

    Args:
        fault: As the server, or the client, has told it.
        app: The commands.
        argv: What was typed.
    """
    _, apps, _ = app.parse_commands(list(argv))
    arguments = apps[-1].assemble_argument_collection()
    if not fault.violations:
        return fault.message
    return "; ".join(f"{_typed(each.field, arguments, argv)}: {each.description}" for each in fault.violations)


def _typed(field: str, arguments: Sequence[Argument], argv: Sequence[str]) -> str:
    path, _, key = field.partition("[")
    name = path.rpartition(".")[2]
    word = _OPTION_OF.get(name, name).replace("_", "-")
    wanted = {f"--{word}", name.upper(), f"JOB_{name.upper()}"}
    for argument in arguments:
        if wanted.intersection(argument.names):
            given = [each.partition("=")[0] for each in argv]
            typed = [each for each in argument.names if each in given]
            # One that was not typed by a name was given by its place.
            option = typed[0] if typed else argument.names[0] if argument.index is None else _place(argument.names[0])
            return f"{option} {key.removesuffix(']')}" if key else option
    return field


def _place(name: str) -> str:
    return "ID" if name.endswith("_ID") else name.removeprefix("--").removeprefix("JOB_").upper()
