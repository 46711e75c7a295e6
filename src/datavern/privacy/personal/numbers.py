"""What is written into a field of kind fodselsnummer: a number that can be one, for once it is sealed nobody sees it.

What is stored already is found, sealed anew, re-indexed and erased whatever it is: this is asked of what an application
writes alone (docs/decisions/0030).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import DIGITS, is_fodselsnummer
from datavern.crypto.lookup import KINDS

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["check_numbers", "numbers_of"]

_digits: Final = KINDS["fodselsnummer"]


def numbers_of(dataset: Dataset) -> tuple[str, ...]:
    """The fields that hold fødselsnummer and D-numbers, and nothing else."""
    return tuple(name for name, f in dataset.fields.items() if f.kind == "fodselsnummer" and not f.unverified)


def check_numbers(dataset: Dataset, names: Iterable[str], row: Mapping[str, Any]) -> None:
    """Refuse what cannot be a number. A value that is no text is for the index to refuse.

    Args:
        dataset: the data map's entry.
        names: the fields to look at.
        row: what is written.

    Raises:
        ConfigurationError: saying what is wrong, and what to do; the value is not in it.
    """
    for name in names:
        value = row.get(name)
        if type(value) is not str:
            continue
        digits = _digits(value)
        if is_fodselsnummer(digits):
            continue
        where = f"{dataset.name}.{name}"
        if len(digits) != DIGITS:
            lost = "; programs that take it for a whole number lose its first zero" if len(digits) == DIGITS - 1 else ""
            raise ConfigurationError(
                f"{where}: a fødselsnummer or D-number has {DIGITS} digits, and there are {len(digits)}{lost}. {_ELSE}"
            )
        raise ConfigurationError(
            f"{where}: no fødselsnummer or D-number: its date or its control digits do not fit, so a digit is wrong. "
            f"Ask for it again, or look it up in Folkeregisteret. {_ELSE}"
        )


_ELSE: Final = "A field that holds other numbers too, or old ones as they came, says unverified = true"
