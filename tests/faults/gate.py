"""The gate that stands at each boundary of a driven process, and the import hook that puts it there."""

import importlib.machinery
import sys
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TypeVar

from tests.faults.boundaries import GATE, PLACES, files, module_name, rewritten

T = TypeVar("T")

BEFORE, AFTER = "before", "after"


@dataclass(slots=True)
class Trap:
    """What is to happen at one boundary: `strike` on the `hit`-th passing of one side of it, once."""

    name: str
    side: str
    hit: int
    strike: Callable[[], None]


class Gate:
    """Counts passings and springs the trap. One per process."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.trap: Trap | None = None

    async def wait(self, name: str, awaited: Awaitable[T]) -> T:
        """Stand in for `await awaited`."""
        self.passing(name, BEFORE)
        result = await awaited
        self.passing(name, AFTER)
        return result

    def around(self, enters: str, exits: str, context: AbstractAsyncContextManager[T]) -> "_Around[T]":
        """Stand in for the context manager of `async with`."""
        return _Around(self, enters, exits, context)

    def steps(self, name: str, source: AsyncIterable[T]) -> "_Steps[T]":
        """Stand in for the source of `async for`."""
        return _Steps(self, name, aiter(source))

    def passing(self, name: str, side: str) -> None:
        """Count one passing, and spring the trap if it is set for this one."""
        self.passed[f"{name} {side}"] += 1
        trap = self.trap
        if trap is not None and trap.name == name and trap.side == side:
            trap.hit -= 1
            if trap.hit == 0:
                self.trap = None
                trap.strike()


@dataclass(frozen=True, slots=True)
class _Around(AbstractAsyncContextManager[T]):
    gate: Gate
    enters: str
    exits: str
    context: AbstractAsyncContextManager[T]

    async def __aenter__(self) -> T:
        self.gate.passing(self.enters, BEFORE)
        entered = await self.context.__aenter__()
        self.gate.passing(self.enters, AFTER)
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.gate.passing(self.exits, BEFORE)
        suppressed = await self.context.__aexit__(kind, error, trace)
        self.gate.passing(self.exits, AFTER)
        return suppressed


@dataclass(frozen=True, slots=True)
class _Steps(AsyncIterator[T]):
    gate: Gate
    name: str
    source: AsyncIterator[T]

    async def __anext__(self) -> T:
        self.gate.passing(self.name, BEFORE)
        value = await anext(self.source)
        self.gate.passing(self.name, AFTER)
        return value


class GatedLoader(SourceFileLoader):
    """Loads a module with a gate at each boundary; no bytecode of it is kept."""

    def __init__(self, name: str, path: str, gate: Gate) -> None:
        super().__init__(name, path)
        self._gate = gate

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the loader's interface
        tree, _ = rewritten(Path(self.path))
        return compile(tree, self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, GATE, self._gate)
        super().exec_module(module)


class GateFinder(MetaPathFinder):
    """Finds the modules of the rooms under test before anyone else does."""

    def __init__(self, gate: Gate, places: Sequence[str]) -> None:
        self._gate = gate
        self.paths = {module_name(path): str(path) for path in files(places)}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the finder's interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        place = self.paths.get(fullname)
        if place is None:
            return None
        is_package = [str(Path(place).parent)] if place.endswith("__init__.py") else None
        loader = GatedLoader(fullname, place, self._gate)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=place, is_package=is_package is not None)
        if is_package is not None:
            spec.submodule_search_locations = is_package
        spec.has_location = True
        return spec


def install(places: Sequence[str] = PLACES) -> Gate:
    """Put gates into whatever of these places is imported from now on.

    Raises:
        RuntimeError: some of it was imported before.
    """
    gate = Gate()
    finder = GateFinder(gate, places)
    too_early = sorted(name for name in finder.paths if name in sys.modules)
    if too_early:
        raise RuntimeError(f"imported before the gates were there: {too_early}")
    sys.meta_path.insert(0, finder)
    return gate
