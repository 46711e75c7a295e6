"""Words of a page by their names, in the language that it is read in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.pages.blocks import Language

__all__ = ["words_in"]


def words_in(language: Language, said: Mapping[str, tuple[str, str]]) -> Callable[..., str]:
    """What gives the words of that language by their name, and puts the values in that they take.

    Args:
        language: "nb" or "en".
        said: name → the words in bokmål, and in English.

    Raises:
        ConfigurationError: no such language.
    """
    if language not in ("nb", "en"):
        raise ConfigurationError("language: expected nb or en")
    which = 0 if language == "nb" else 1

    def word(name: str, **values: Any) -> str:
        text = said[name][which]
        return text.format(**values) if values else text

    return word
