from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import gopher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def generator() -> AsyncIterator[str]:
    await trio.lowlevel.checkpoint()
    yield "pool"


async def plain() -> str:
    await trio.lowlevel.checkpoint()
    return "pool"


async def with_argument(settings: object) -> AsyncIterator[object]:
    await trio.lowlevel.checkpoint()
    yield settings


@pytest.mark.parametrize("opens", [generator, asynccontextmanager(generator)])
@pytest.mark.parametrize("is_asyncio", [False, True])
async def test_lifespan_takes_a_generator_or_a_context_manager(opens: object, *, is_asyncio: bool) -> None:
    """Both spellings open what they yield, bare or with arguments, and leave the function as it was."""
    registry = gopher.Registry()

    decorated = registry.lifespan(asyncio=True)(opens) if is_asyncio else registry.lifespan(opens)  # type: ignore[call-overload, type-var]  # of two types
    kept = registry.asyncio_lifespan if is_asyncio else registry.trio_lifespan

    assert decorated is opens
    assert kept is not None
    async with kept() as resources:
        assert resources == "pool"


@pytest.mark.parametrize("function", [plain, with_argument])
def test_lifespan_refuses_what_it_cannot_open(function: object) -> None:
    """A function that does not yield, or wants arguments, is refused where it is registered."""
    with pytest.raises(ValueError, match="no arguments that yields once"):
        gopher.Registry().lifespan(function)  # type: ignore[call-overload]  # what is refused


def test_lifespan_is_one_of_each_kind() -> None:
    """A second one is refused; a Trio and an asyncio one go together."""
    registry = gopher.Registry()
    registry.lifespan(generator)
    registry.lifespan(asyncio=True)(generator)

    with pytest.raises(ValueError, match="has a lifespan already"):
        registry.lifespan(generator)
    with pytest.raises(ValueError, match="has an asyncio lifespan already"):
        registry.lifespan(asyncio=True)(generator)


@pytest.mark.parametrize("function", [generator, plain])
def test_middleware_refuses_what_it_cannot_call(function: object) -> None:
    """Middleware is an `async def` of three arguments."""
    with pytest.raises(ValueError, match="three arguments"):
        gopher.Registry().middleware(function)  # type: ignore[type-var]  # what is refused
