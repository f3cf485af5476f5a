"""The command line of the programs that take settings: flags made from `gopher.config`, `--config` and `--print-config`.

The flags hand over text; `gopher.config.load` converts it, because only there are all layers seen together and all faults told at
once. Cyclopts does the rest: help, completion, unknown options.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import App, Parameter

from gopher import config
from gopher.cli import output
from gopher.cli.examples import epilogue_of

Body: TypeAlias = Callable[[config.Settings], "int | None"]

CONFIG_VARIABLE: Final = "GOPHER_CONFIG"
CONFIG_PARAMETERS: Final = {
    "config": Annotated[str | None, Parameter("--config", help=f"TOML file with the settings. Env {CONFIG_VARIABLE}.")],
    "print_config": Annotated[bool, Parameter("--print-config", negative=(), help="Show the settings in force, and whence.")],
}


def new_app(name: str, text: str, *, epilogue: str | None = None) -> App:
    """Return an application that raises what is wrong, so that `output.guarded` can say it in one line."""
    return App(
        name=name,
        help=text,
        help_format="plaintext",
        help_epilogue=epilogue,
        version=lambda: version("gopher-jobs"),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )


def run_program(program: config.Program, body: Body, argv: Sequence[str] | None = None) -> int:
    """Read the settings of a program, run its body and return the exit code; every fault is one line on stderr.

    Args:
        program: Which settings it takes.
        body: Called with them; what it returns is the exit code, None means 0.
        argv: The arguments; None: those of the process.
    """
    app = program_app(program, body)
    return output.guarded(app, argv)


def program_app(program: config.Program, body: Body) -> App:
    """Return the application of a program."""
    flags = {_keyword(spec.flag): spec.flag for _, _, spec, _ in _settings(program) if spec.flag is not None}

    def main(**given: str | bool | None) -> int:
        path = given.pop("config", None) or os.environ.get(CONFIG_VARIABLE)
        is_question = given.pop("print_config", False)
        settings = config.load(
            program,
            flags={flags[name]: value for name, value in given.items() if value is not None},
            environ=os.environ,
            document=config.read_document(Path(str(path))) if path else None,
            document_name=str(path),
        )
        if is_question:
            output.line(config.describe_settings(settings))
            return 0
        return body(settings) or 0

    # Cyclopts takes the flags from the signature: one keyword each.
    main.__signature__ = _signature(program)  # type: ignore[attr-defined]  # as PEP 362 has it
    app = new_app(program.name, program.help, epilogue=epilogue_of(program.name))
    app.default(main)
    return app


def _signature(program: config.Program) -> inspect.Signature:
    annotations: dict[str, object] = {}
    for table, name, spec, hint in _settings(program):
        # Two sections may share a flag, as both grace periods do in `gopher dev`; the first one describes it.
        if spec.flag is None or _keyword(spec.flag) in annotations:
            continue
        default = program.defaults.get(f"{table}.{name}") or _default_text(table, name)
        parameter = Parameter(spec.flag, help=f"{spec.help} Env {', '.join(spec.variables)}.", show_default=default)
        annotations[_keyword(spec.flag)] = Annotated[(bool if hint is bool else str) | None, parameter]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, keyword, default=None, annotation=annotation)
            for name, annotation in (annotations | CONFIG_PARAMETERS).items()
        ]
    )


def _settings(program: config.Program) -> list[tuple[str, str, config.Setting, object]]:
    return [(table, *found) for table in program.tables for found in config.settings_of(config.SECTIONS[table])]


def _default_text(table: str, name: str) -> str | bool:
    default = getattr(config.SECTIONS[table](), name)
    return False if default is None or default == "" else config.as_text(default)


def _keyword(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
