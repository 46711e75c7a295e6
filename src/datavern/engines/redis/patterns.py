"""Patterns of keys with one subject in them: ``user:session:{subject}``."""

from __future__ import annotations

import re
from typing import NamedTuple

from datavern.contracts.errors import ConfigurationError
from datavern.engines.redis.values import name_of

__all__ = ["KeyPattern"]

_PLACE = "{subject}"
_GLOB = re.compile(rb"[*?\[\]\\^-]")


class KeyPattern(NamedTuple):
    """A pattern with one subject in it, and perhaps ``*`` for any text.

    Attributes:
        text: as the data map has it.
        before: what stands before the subject, cut at each ``*``.
        after: what stands after it.
    """

    text: str
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str) -> KeyPattern:
        """Read a pattern.

        Raises:
            ConfigurationError: it names no subject, or more than one, or a ``*`` stands beside the subject, so that
                ``u1`` would reach ``u12``.
        """
        before, _, after = text.partition(_PLACE)
        if text.count(_PLACE) != 1:
            raise ConfigurationError(f"key pattern {text}: expected {_PLACE} in it, once")
        if before.endswith("*") or after.startswith("*"):
            raise ConfigurationError(
                f"key pattern {text}: a * beside {_PLACE} cannot tell u1 from u12: put a separator between them"
            )
        return cls(text, tuple(name_of(before).split(b"*")), tuple(name_of(after).split(b"*")))

    @property
    def exact(self) -> bool:
        """Whether a subject has one key."""
        return len(self.before) == len(self.after) == 1

    def key(self, subject: str) -> bytes:
        """The subject's one key."""
        return self.before[0] + self._name(subject) + self.after[0]

    def glob(self, subject: str) -> bytes:
        """What SCAN looks for: the subject's keys and (once each is compared with `matches`) nobody else's."""
        return b"".join((_joined(self.before), _escaped(self._name(subject)), _joined(self.after)))

    def matcher(self, subject: str) -> re.Pattern[bytes]:
        """What each found key is compared with."""
        parts = (_expression(self.before), re.escape(self._name(subject)), _expression(self.after))
        return re.compile(b"".join(parts), re.DOTALL)

    def everybody(self) -> tuple[bytes, re.Pattern[bytes]]:
        """The glob and the expression for the keys of all subjects; the subject is the expression's group."""
        glob = _joined(self.before) + b"*" + _joined(self.after)
        return glob, re.compile(_expression(self.before) + b"(.+)" + _expression(self.after), re.DOTALL)

    def _name(self, subject: str) -> bytes:
        name = name_of(subject)
        if not self.exact:
            # user:{subject}:* : whether user:a:b:c is a's or a:b's, nobody could say.
            for beside in (self.before[-1][-1:], self.after[0][:1]):
                if beside and beside in name:
                    raise ConfigurationError(
                        f"key pattern {self.text}: a subject id that holds {beside.decode(errors='replace')!r} cannot "
                        "be told from another there: use another separator in the pattern, or other ids"
                    )
        return name


def _escaped(name: bytes) -> bytes:
    return _GLOB.sub(rb"\\\g<0>", name)


def _joined(parts: tuple[bytes, ...]) -> bytes:
    return b"*".join(_escaped(part) for part in parts)


def _expression(parts: tuple[bytes, ...]) -> bytes:
    return b".*".join(re.escape(part) for part in parts)
