"""How values stand in documents: at dotted paths, and ids in every form that means the same."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bson import Binary, ObjectId

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.subjects import canonical_subject

__all__ = ["Document", "field_path", "forms_of", "id_of", "nested", "values_at"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})\Z")
_HEX24 = re.compile(r"[0-9a-f]{24}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_IDS: Final = (str, int, uuid.UUID, ObjectId)
_SIGNED_64: Final = 1 << 63


class Document(dict[str, Any]):
    """A document that answers by dotted path too: ``document["owner.id"]`` is ``document["owner"]["id"]``."""

    __slots__ = ()

    def __missing__(self, path: str) -> Any:
        """The value at a path. Raises `KeyError` where there is none."""
        value: Any = dict(self)
        for part in str(path).split("."):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                raise KeyError(path)
        return value

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or `default`."""
        try:
            return self[path]
        except KeyError:
            return default


def forms_of(value: Any) -> list[Any]:
    """How a value may stand in a document: text that is an id's canonical form is the id too, in its own type.

    A subject's id compares as canonical text: 42 and "42" name the same person, and so do a UUID or an ObjectId and
    their text, whatever type a document keeps them as.
    """
    if type(value) is not str:
        return [value]
    forms: list[Any] = [value]
    if _WHOLE.match(value) and value != "-0" and -_SIGNED_64 <= int(value) < _SIGNED_64:
        forms.append(int(value))
    elif _HEX24.match(value):
        forms.append(ObjectId(value))
    elif _UUID.match(value):
        forms += [uuid.UUID(value), Binary(uuid.UUID(value).bytes, 3)]
    return forms


def nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose columns may be dotted paths, as a document.

    Raises:
        ConfigurationError: a name that is no path, or two columns that say different things of the same field.
    """
    document: dict[str, Any] = {}
    for path, value in row.items():
        parts = field_path(path).split(".")
        into = document
        for part in parts[:-1]:
            inner = into.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"{path}: {part} is a value, and has no fields")
            into = inner
        if parts[-1] in into and not (isinstance(into[parts[-1]], dict) and isinstance(value, Mapping)):
            raise ConfigurationError(f"{path}: the field is given twice")
        into[parts[-1]] = {**into[parts[-1]], **value} if parts[-1] in into else _copied(value)
    return document


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def field_path(name: Any) -> str:
    """A dotted path, as it is.

    Raises:
        ConfigurationError: it is none, or holds what MongoDB would take for an operator.
    """
    if not isinstance(name, str) or not name or "\0" in name or name.startswith("$"):
        raise ConfigurationError("a field's path is text, without NUL, and does not begin with $")
    if any(not part or part.startswith("$") for part in name.split(".")):
        raise ConfigurationError(f"{name.replace('$', '…')}: a path's parts are names, and none begins with $")
    return name


def values_at(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    """Every value that MongoDB's own queries would find at a path."""
    if isinstance(value, list):
        if parts and parts[0].isdecimal() and int(parts[0]) < len(value):
            yield from values_at(value[int(parts[0])], parts[1:])
        for element in value:
            if not parts or isinstance(element, Mapping):
                yield from values_at(element, parts)
    elif not parts:
        yield value
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from values_at(value[parts[0]], parts[1:])


def id_of(value: Any) -> str | None:
    """The canonical text of an id as a document keeps it; None for what names nobody."""
    if isinstance(value, Binary) and value.subtype in {3, 4} and len(value) == 16:  # noqa: PLR2004  (a UUID's bytes)
        value = uuid.UUID(bytes=bytes(value))
    if isinstance(value, bool) or not isinstance(value, _IDS):
        return None
    try:
        return canonical_subject(value)
    except ConfigurationError:
        return None
