from __future__ import annotations

from pathlib import Path

from gopher.cli.main import BULK_COMMANDS, COMMANDS, SCHEDULE_COMMANDS
from gopher.cli.output import EXIT_CODES
from gopher.config import SECTIONS, as_text, settings_of
from gopher.job import Job, JobState
from gopher.wire.shape import job_object

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_configuration_page_lists_every_setting_as_it_is() -> None:
    """Key, flag, variables, default and help of each setting stand in the page as they stand in the code."""
    page = (DOCS / "configuration.md").read_text()

    for section in SECTIONS.values():
        for name, spec, _ in settings_of(section):
            row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |") and spec.help in line)
            default = getattr(section(), name)
            assert spec.flag is None or f"`{spec.flag}`" in row
            assert all(f"`{variable}`" in row for variable in spec.variables)
            assert default in (None, "", False) or f"`{as_text(default)}`" in row


def test_cli_page_names_every_command_and_exit_code() -> None:
    """No command and no exit code is missing from the page."""
    page = (DOCS / "cli.md").read_text()

    for commands in (*COMMANDS.values(), SCHEDULE_COMMANDS, BULK_COMMANDS):
        assert all(name in page for name, _, _ in commands)
    for line in EXIT_CODES.splitlines()[1:]:
        assert f"| {line.split()[0]} |" in page


def test_cli_page_names_every_key_of_a_job() -> None:
    """The object of --json has no key that the page does not tell of."""
    page = (DOCS / "cli.md").read_text()

    job = job_object(Job(id="j", namespace="n", type="t", state=JobState.ENQUEUED, submitted_ms=0))

    assert [key for key in job if f"`{key}`" not in page] == []
    assert len(job) > len(Job.__struct_fields__) - 5
