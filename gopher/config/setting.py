"""What a setting is: a field of a section, with its flag, its variables and its help; and how a section checks itself."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from gopher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the programs and the documentation need to know of a field.

    Attributes:
        flag: None when it has none, as a password has not: every user of the machine sees flags.
        variables: Read in this order.
        help: One sentence with the unit.
        parse: From text to the value, where the value's type does not say how.
        mask: What is shown in place of the value.
    """

    flag: str | None
    variables: tuple[str, ...]
    help: str
    parse: Callable[[str], object] | None = None
    mask: Callable[[str], str] | None = None


def setting(
    default: T,
    flag: str | None,
    variables: str,
    text: str,
    *,
    parse: Callable[[str], object] | None = None,
    mask: Callable[[str], str] | None = None,
) -> T:
    """Return the dataclass field; typed as its value, because that is what a dataclass makes of it."""
    metadata = {"setting": Setting(flag, tuple(variables.split()), text, parse, mask)}
    if isinstance(default, dict):
        return cast("T", field(default_factory=default.copy, metadata=metadata))
    return field(default=default, metadata=metadata)


class Section:
    """What the sections have in common: each is checked when it is made, so one built by hand obeys the same bounds."""

    __slots__ = ()
    table: ClassVar[str]

    def __post_init__(self) -> None:
        """Check every field, and then what they say together.

        Raises:
            ConfigError: It lists all faults.
        """
        problems = list(self._field_problems()) or list(self.conflicts())
        if problems:
            raise ConfigError(problems)

    def _field_problems(self) -> Iterator[str]:
        for name, spec, hint in settings_of(type(self)):
            try:
                msgspec.convert(getattr(self, name), hint)
            except msgspec.ValidationError as error:
                yield f"{name_of(self.table, name, spec)}: {describe(error, hint)}"

    def conflicts(self) -> Iterator[str]:
        """Yield a line for each fault that no single field shows; called only when each field by itself is right."""
        yield from ()


def settings_of(section: type[Section]) -> Iterator[tuple[str, Setting, object]]:
    """Yield name, setting and type of each field, in order."""
    hints = get_type_hints(section, include_extras=True)
    for each in fields(section):  # type: ignore[arg-type]  # every Section is a dataclass
        yield each.name, each.metadata["setting"], hints[each.name]


def name_of(table: str, name: str, spec: Setting) -> str:
    """Return all names of a setting, for messages: its flag, its variables and its key in the file."""
    flag = [spec.flag] if spec.flag else []
    return ", ".join([*flag, *spec.variables, f"{table}.{name}"])


def describe(error: Exception, hint: object) -> str:
    """Return the error's text as the end of a line: small letter first, no backticks, no path inside the value.

    Args:
        error: Of a parser, or of msgspec, which names neither the choices nor what a pattern is for.
        hint: The type of the setting.
    """
    text = str(error).split(" - at")[0].replace("`", "")
    if text.startswith("Invalid enum value"):
        return f"expected one of {', '.join(str(each) for part in _parts(hint) for each in _choices(part))}"
    for part in _parts(hint):
        if isinstance(part, msgspec.Meta) and part.pattern is not None and repr(part.pattern) in text:
            return f"expected {part.description}"
    return text[:1].lower() + text[1:]


def _parts(hint: object) -> Iterator[object]:
    """Yield the type and all that it is made of, with what is annotated to it."""
    yield hint
    yield from getattr(hint, "__metadata__", ())
    for each in get_args(hint):
        yield from _parts(each)


def _choices(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()
