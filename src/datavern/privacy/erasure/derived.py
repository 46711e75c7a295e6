"""What the application made of personal data elsewhere: a search index, an export, a warehouse, a cache of its own.

Datavern cannot look into it. The application says how a person goes out of it, and erasures call that, journalled like
any other step, until it is done.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DatavernError
from datavern.privacy.erasure.progress import Outcome, nothing, why

if TYPE_CHECKING:
    from datavern.privacy.erasure.progress import Progress

__all__ = ["DERIVED", "DERIVED_CLAIM", "Derived", "DerivedErasures", "from_names", "step_name"]

DERIVED = "derived:"
"""What stands before its name on certificates and in answers."""
DERIVED_CLAIM = "Derived stores were erased by the application's own functions, whose word it is."
"""What a certificate says where there are some."""
_AT_ONCE = 8

Erase = Callable[[str], Awaitable[int | None]]
Access = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived store.

    Attributes:
        name: what it is called on certificates.
        erase: takes a person (the canonical id) out of it, and says how much that was, or None where nobody counts. It
            is called again after a crash, so that it finds nothing then.
        access: what is there about a person, as rows; None: an access request says nothing of it.

    Raises:
        ConfigurationError: a name that is none, or no function.
    """

    name: str
    erase: Erase
    access: Access | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "\0" in self.name:
            raise ConfigurationError("derived: expected a name, without NUL characters")
        for what, function in (("erase", self.erase), ("access", self.access)):
            if not callable(function) and not (what == "access" and function is None):
                raise ConfigurationError(f"derived.{self.name}.{what}: expected an async function of a subject")

    @property
    def label(self) -> str:
        """What it is called on certificates and in answers."""
        return DERIVED + self.name

    async def erased(self, subject: str) -> Outcome:
        """Take a person out of it; what was done.

        Raises:
            ConfigurationError: the function is not async, or gives no number.
            DerivedFailed: it raised something.
        """
        number = await self._called(self.erase, "erase", subject)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise ConfigurationError(f"derived.{self.name}.erase: expected how many, or None")
        outcome = nothing("derived")
        outcome["found"] = number or 0
        if number is None:
            outcome["notes"].append("the person was taken out; it does not say of how much")
        elif number:
            outcome["done"] = {"erased by the application": number}
        return outcome

    async def found(self, subject: str) -> list[Mapping[str, Any]]:
        """What is there about a person.

        Raises:
            ConfigurationError: the function is not async, or gives no rows.
            DerivedFailed: it raised something.
        """
        rows = [] if self.access is None else await self._called(self.access, "access", subject)
        if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
            raise ConfigurationError(f"derived.{self.name}.access: expected rows: a list of mappings")
        return list(rows)

    async def _called(self, function: Callable[[str], Any], what: str, subject: str) -> Any:
        failed = ""
        try:
            answer = function(subject)
            if not inspect.isawaitable(answer):
                raise ConfigurationError(f"derived.{self.name}.{what}: the function is not async")  # noqa: TRY301  (told apart below)
            return await answer
        except DatavernError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever an application raises; its text may hold values)
            failed = type(error).__name__
        raise DerivedFailed(f"derived.{self.name}.{what} raised {failed}")


class DerivedFailed(DatavernError):
    """A function of the application raised something; which kind is in the message, and nothing that it said."""


class DerivedErasures:
    """The derived stores' steps of a group of erasures: the last, when nothing is left that they are made from.

    Args:
        derived: by name: those that are known in this process.
        group: the erasures.
    """

    def __init__(self, derived: Mapping[str, Derived], group: Sequence[Progress]) -> None:
        self._derived = {one.label: one for one in derived.values()}
        self._group = group
        self._few = asyncio.Semaphore(_AT_ONCE)

    async def run(self, steps: Mapping[str, Mapping[str, Outcome]]) -> dict[str, dict[str, Outcome]]:
        """Do what is not done; request → label → what was done. What waits stands in each `Progress`.

        Args:
            steps: request → the steps that have committed in the ledger.
        """
        done: dict[str, dict[str, Outcome]] = {}

        async def one(progress: Progress, label: str) -> None:
            before = steps.get(progress.entry.id, {}).get(step_name(label))
            if before is not None:
                progress.done[label] = before
                return
            derived = self._derived.get(label)
            if derived is None:
                progress.waiting[label] = "it is not known in this process: say db.derived(…) before the manager opens"
                return
            try:
                async with self._few:
                    done.setdefault(progress.entry.id, {})[label] = await derived.erased(progress.entry.subject)
            except DatavernError as error:
                progress.waiting[label] = why(error)

        calls = []
        for progress in self._group:
            labels = [label for label in progress.entry.datasets if label.startswith(DERIVED)]
            if progress.waiting:
                progress.waiting |= dict.fromkeys(labels, "the stores that it is made from wait")
            else:
                calls += [one(progress, label) for label in labels]
        await asyncio.gather(*calls)
        return done


def step_name(label: str) -> str:
    """What the step of a dataset, or a derived store, is called in the journal: no dataset's name holds a #."""
    return f"#{label}" if label.startswith(DERIVED) else label.partition(".")[2]


def from_names(tables: Mapping[str, Mapping[str, Any]]) -> list[Derived]:
    """Derived stores as TOML names them: ``[derived.search-index]`` with ``erase = "package.module:function"``.

    Raises:
        ConfigurationError: something else stands there, or there is no such function.
    """
    import pkgutil  # noqa: PLC0415  (few configurations have them)

    made = []
    for name, values in tables.items():
        unknown = sorted(values.keys() - {"erase", "access"})
        if unknown or "erase" not in values:
            raise ConfigurationError(
                f"derived.{name}: expected erase, and perhaps access; found {unknown or 'neither'}"
            )
        functions: dict[str, Any] = {}
        for what, where in values.items():
            if not isinstance(where, str) or where.count(":") != 1:
                raise ConfigurationError(f'derived.{name}.{what}: expected "package.module:function"')
            problem = ""
            try:
                functions[what] = pkgutil.resolve_name(where)
            except (ImportError, AttributeError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                raise ConfigurationError(
                    f"derived.{name}.{what}: {where} cannot be loaded ({problem}): install it, or set PYTHONPATH"
                )
        made.append(Derived(name, **functions))
    return made
