"""Collections as they should be: their indexes and their ``$jsonSchema``, made where they are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate

if TYPE_CHECKING:
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["Collections", "Index", "described_fields", "schema_of"]

Direction = Literal[1, -1, "text", "hashed", "2d", "2dsphere"]
_NAMESPACE_EXISTS = "NamespaceExists"


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a collection.

    Attributes:
        keys: path → 1, -1, "text", "hashed", "2d" or "2dsphere", in order.
        name: made of the keys when None, as MongoDB's drivers do.
        unique: no two documents hold the same values.
        expire_after: seconds after the date at the (one) path, when MongoDB deletes the document.
        partial: of which documents; a filter expression of MongoDB's.
        sparse: leave out documents that lack the paths.
    """

    keys: Mapping[str, Direction]
    name: str | None = None
    unique: bool = False
    expire_after: float | None = None
    partial: Mapping[str, Any] | None = field(default=None, hash=False)
    sparse: bool = False

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigurationError("an index has at least one path")
        if self.name is None:
            made = "_".join(f"{path}_{direction}" for path, direction in self.keys.items())
            object.__setattr__(self, "name", made)

    def differs(self, other: Index) -> str | None:
        """In what the other one is not the same; None when it is."""
        if list(self.keys.items()) != list(other.keys.items()):
            return "is over other paths"
        for what in ("unique", "expire_after", "sparse"):
            if getattr(self, what) != getattr(other, what):
                return f"has another {what}"
        return "covers other documents" if dict(self.partial or {}) != dict(other.partial or {}) else None


def schema_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The ``$jsonSchema`` of a collection's options; empty where there is none."""
    validator = options.get("validator")
    found = validator.get("$jsonSchema") if isinstance(validator, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def described_fields(schema: Mapping[str, Any], path: str = "") -> dict[str, tuple[str, bool]]:
    """Dotted path → BSON type and whether it may be null, of the fields that a ``$jsonSchema`` names."""
    found: dict[str, tuple[str, bool]] = {}
    properties = schema.get("properties")
    required = schema.get("required") or ()
    for name, rule in properties.items() if isinstance(properties, Mapping) else ():
        kinds = _kinds(rule)
        if isinstance(rule, Mapping) and "properties" in rule:
            found |= described_fields(rule, f"{path}{name}.")
        plain = [kind for kind in kinds if kind != "null"]
        nullable = "null" in kinds or name not in required
        found[f"{path}{name}"] = (plain[0].lower() if len(plain) == 1 else "", nullable)
    return found


def _kinds(rule: Any) -> tuple[str, ...]:
    kinds = rule.get("bsonType") if isinstance(rule, Mapping) else None
    if isinstance(kinds, str):
        return (kinds,)
    return tuple(str(kind) for kind in kinds) if isinstance(kinds, list | tuple) else ()


def with_fields(schema: Mapping[str, Any], fields: Mapping[str, tuple[str, ...]], where: str) -> dict[str, Any]:
    """The schema with these fields added where it does not know them.

    Raises:
        ConfigurationError: it knows one with a type that cannot hold what it must.
    """
    merged: dict[str, Any] = {**schema}
    for path, kinds in fields.items():
        parts = path.split(".")
        level = merged
        for part in parts[:-1]:
            properties = level["properties"] = {**(level.get("properties") or {})}
            level = properties[part] = {**(properties.get(part) or {"bsonType": ["object", "array", "null"]})}
            # Through an array the same path leads to every element: $jsonSchema has no rule for both at once.
            if "array" in _kinds(level):
                break
        else:
            properties = level["properties"] = {**(level.get("properties") or {})}
            known = _kinds(properties.get(parts[-1]))
            if not known:
                properties[parts[-1]] = {**(properties.get(parts[-1]) or {}), "bsonType": list(kinds)}
            elif not set(known) & (set(kinds) - {"null"}):
                raise ConfigurationError(
                    f"{where}.{path}: the validator wants {' or '.join(known)}, and it must hold {' or '.join(kinds)}"
                )
    return merged


class Collections:
    """What `MongoDBProvider` offers for collections. See its methods of the same names.

    Args:
        provider: the provider.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider

    async def options(self, name: str) -> dict[str, Any] | None:
        """The collection's options, or None when there is no such collection."""
        error: BaseException | None = None
        try:
            cursor = await self._provider.database.list_collections(filter={"name": name})
            found = await cursor.to_list(None)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        else:
            return dict(found[0].get("options") or {}) if found else None
        raise error

    async def indexes(self, name: str) -> list[Index]:
        """Its indexes; none when there is no such collection."""
        error: BaseException | None = None
        try:
            found = await self._provider.raw(name).index_information()
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        else:
            return [_index(one, described) for one, described in found.items()]
        raise error

    async def prepare(
        self,
        name: str,
        *,
        indexes: Sequence[Index] = (),
        schema: Mapping[str, Any] | None = None,
        fields: Mapping[str, tuple[str, ...]] | None = None,
        validation: Literal["strict", "moderate"] = "strict",
        action: Literal["error", "warn"] = "error",
    ) -> list[str]:
        """Make the collection so; what was run."""
        provider = self._provider
        ran: list[str] = []
        options = await self.options(name)
        before = schema_of(options or {})
        wanted = dict(schema) if schema is not None else with_fields(before, fields or {}, name)
        level = {"validationLevel": validation, "validationAction": action}
        asked: dict[str, Any] = {"validator": {"$jsonSchema": wanted}, **level} if wanted else {}
        error: BaseException | None = None
        try:
            if options is None:
                await provider.database.create_collection(name, check_exists=False, **asked)
                ran.append(f"create {name}" + (" with a $jsonSchema" if wanted else ""))
            elif wanted and (wanted != before or (schema is not None and not _same_level(options, level))):
                others = {k: v for k, v in (options.get("validator") or {}).items() if k != "$jsonSchema"}
                asked["validator"] = {**others, "$jsonSchema": wanted}
                if schema is None:  # what somebody else decided about the validator stays
                    asked = {"validator": asked["validator"]}
                await provider.database.command("collMod", name, **asked)
                ran.append(f"collMod {name}: $jsonSchema")
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=provider.name, wrote=True)
        if error is not None:
            if getattr(error, "code", None) == _NAMESPACE_EXISTS:  # another process made it at the same moment
                return await self.prepare(
                    name, indexes=indexes, schema=schema, fields=fields, validation=validation, action=action
                )
            raise error
        for index in await self._missing(name, indexes):
            await self._make(name, index)
            ran.append(f"create index {index.name} on {name}" + (" (unique)" if index.unique else ""))
        return ran

    async def _missing(self, name: str, indexes: Sequence[Index]) -> list[Index]:
        """The indexes that are not there. What is there under the same name, or over the same paths, must be the same.

        Raises:
            ConfigurationError: it is not.
        """
        there = {index.name: index for index in await self.indexes(name)}
        missing = []
        for index in indexes:
            known = there.get(index.name)
            if known is None:
                same = [one for one in there.values() if index.differs(one) is None]
                if not same:
                    missing.append(index)
            elif (difference := index.differs(known)) is not None:
                raise ConfigurationError(
                    f"{name}: the index {index.name} is there, and {difference}: drop it first, or name yours "
                    "differently"
                )
        return missing

    async def _make(self, name: str, index: Index) -> None:
        options: dict[str, Any] = {"name": index.name, "unique": index.unique, "sparse": index.sparse}
        if index.expire_after is not None:
            options["expireAfterSeconds"] = index.expire_after
        if index.partial is not None:
            options["partialFilterExpression"] = dict(index.partial)
        options = {key: value for key, value in options.items() if value is not False}
        error: BaseException | None = None
        try:
            await self._provider.raw(name).create_index(list(index.keys.items()), **options)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name, wrote=True)
        if isinstance(error, ConstraintViolated):
            raise ConstraintViolated(
                f"{name}: the index {index.name} would be unique, and documents hold the same values already",
                provider=self._provider.name,
                code=error.code,
                constraint=index.name,
            ) from error.__cause__
        if error is not None:
            raise error


def _same_level(options: Mapping[str, Any], level: Mapping[str, Any]) -> bool:
    defaults = {"validationLevel": "strict", "validationAction": "error"}
    return all(options.get(key, defaults[key]) == value for key, value in level.items())


def _index(name: str, described: Mapping[str, Any]) -> Index:
    expire = described.get("expireAfterSeconds")
    partial = described.get("partialFilterExpression")
    return Index(
        dict(described["key"]),
        name=name,
        unique=bool(described.get("unique", False)),
        expire_after=None if expire is None else float(expire),
        partial=None if partial is None else _plain(partial),
        sparse=bool(described.get("sparse", False)),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
