"""How the field of an anonymised row becomes one that is about nobody: the strategies of ``Field(anonymize=…)``.

What can be turned back is no anonymisation but pseudonymisation, and the row stays personal data (GDPR Recital 26): so
no strategy here keeps anything that leads back. Hashes, and pseudonyms under a key that is kept, are refused by name: a
fødselsnummer, a telephone number or a name is found again by trying them all. Randomness is the operating system's.
"""

from __future__ import annotations

import datetime as dt
import hmac
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Field

__all__ = ["Anonymizer", "Strategy", "Unfit", "parse"]

_NAMES: Final = ("null", "constant", "pseudonym", "generalise", "noise", "fake")
_GRANULARITIES: Final = ("year", "decade", "age", "postcode", "band")
_FAKES: Final = ("name", "email", "phone", "address", "postcode", "fodselsnummer")
_KINDS: Final = {"name", "email", "phone", "fodselsnummer"}
"""The kinds of `Field` that say what a value is: a fake of another kind would be a mistake."""
_NUMBERS: Final = ("integer", "real")
_DATES: Final = ("date", "timestamp")
_TEXTS: Final = ("text",)
_POSTCODE: Final = re.compile(r"[0-9]{4}")
_BAND: Final = 10
_OLDEST: Final = 90
"""From this age on, ages are one band: there are few people in each of the higher ones."""
_RECITAL: Final = "that is pseudonymisation, and the row would stay personal data (GDPR Recital 26)"
_PRECISION: Final = 1 << 53


class Unfit(Exception):
    """The value is none that the strategy is for. The message holds no value."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy, checked against its field.

    Attributes:
        name: "null", "constant", "pseudonym", "generalise", "noise" or "fake".
        argument: the constant; what is generalised to; how large the noise is at the most (a number, or days); what is
            made up.
        width: of a band.
    """

    name: str
    argument: Any = None
    width: int | float = 0

    @property
    def distinct(self) -> bool:
        """Whether it makes another value for each row, so that it may stand in a unique column."""
        return self.name in ("null", "pseudonym", "fake")

    def __str__(self) -> str:
        """For reports: ``generalise decade``; never the constant."""
        if self.name in ("generalise", "fake"):
            return f"{self.name} {self.argument}" + (f" of {self.width}" if self.width else "")
        return f"{self.name} up to {self.argument}" if self.name == "noise" else self.name


def parse(said: Any, field: Field) -> Strategy:
    """What ``anonymize`` says, for a field.

    Args:
        said: a name (``"null"``), or a mapping of one name to its argument: ``{"generalise": "decade"}``; a band has
            its ``width`` beside it.
        field: what it is said of.

    Raises:
        ConfigurationError: no such strategy, one that does not fit the field, or one that could be turned back.
    """
    given = {said: None} if isinstance(said, str) else dict(said) if isinstance(said, Mapping) else {}
    width = given.pop("width", None)
    if len(given) != 1:
        raise ConfigurationError(
            f'anonymize: expected one of {", ".join(_NAMES)}, such as anonymize = "null" or anonymize = '
            '{ generalise = "decade" }'
        )
    ((name, argument),) = given.items()
    if name in ("hash", "sha256", "md5"):
        raise ConfigurationError(
            f"anonymize: a hash is found again by trying values ({_RECITAL}): use pseudonym, whose key dies with the "
            "erasure"
        )
    make: Callable[[Any, Any, Field], Strategy] | None = _MAKERS.get(name)
    if make is None:
        import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

        near = difflib.get_close_matches(str(name), _NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(_NAMES)}"
        raise ConfigurationError(f"anonymize: no strategy is called that; {hint}")
    if width is not None and not (name == "generalise" and argument in ("band", "age")):
        raise ConfigurationError("anonymize: width is for generalise, to a band or an age")
    strategy = make(argument, width, field)
    if field.unique and not strategy.distinct:
        raise ConfigurationError(
            f"anonymize: the field is unique, so {name} would leave a value that still tells the row from all others, "
            "or clash: use null, pseudonym or fake"
        )
    return strategy


def _fits(field: Field, types: tuple[str, ...], what: str) -> None:
    """A sealed value brings its type along, so that is looked at when it is opened."""
    if not field.sealed and field.type not in types:
        raise ConfigurationError(f"anonymize: {what} is for {' and '.join(types)}, and the field is {field.type}")


def _null(argument: Any, _: Any, __: Field) -> Strategy:
    _bare("null", argument)
    return Strategy("null")


def _constant(argument: Any, _: Any, field: Field) -> Strategy:
    kinds: dict[str, tuple[type, ...]] = {
        "text": (str,), "integer": (int,), "real": (int, float), "boolean": (bool,), "bytes": (bytes,),
        "date": (dt.date, str), "timestamp": (dt.datetime, str), "json": (str, int, float, bool, list, dict),
    }  # fmt: skip
    wanted = (str, int, float, bool, dt.date, bytes) if field.sealed else kinds[field.type]
    fits = isinstance(argument, wanted) and (not isinstance(argument, bool) or bool in wanted)
    if fits and not field.sealed and field.type in _DATES and isinstance(argument, str):
        try:
            argument = (dt.date if field.type == "date" else dt.datetime).fromisoformat(argument)
        except ValueError:
            fits = False
    if not fits:
        raise ConfigurationError(
            "anonymize: constant wants the value that is to stand there, of the field's type: "
            'anonymize = { constant = "…" }'
        )
    return Strategy("constant", argument)


def _pseudonym(argument: Any, _: Any, field: Field) -> Strategy:
    if argument is not None:
        raise ConfigurationError(
            f"anonymize: a pseudonym's key dies with the erasure; under a key that is kept, {_RECITAL}: write "
            'anonymize = "pseudonym"'
        )
    _fits(field, (*_TEXTS, "bytes"), "a pseudonym")
    return Strategy("pseudonym")


def _generalise(argument: Any, width: Any, field: Field) -> Strategy:
    if argument not in _GRANULARITIES:
        raise ConfigurationError(f"anonymize: generalise is one of {', '.join(_GRANULARITIES)}")
    if field.kind in _KINDS:
        raise ConfigurationError(f"anonymize: a {field.kind} has nothing more general: use null, pseudonym or fake")
    if argument == "band":
        _fits(field, _NUMBERS, "a band")
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < math.inf:
            raise ConfigurationError('anonymize: a band needs its width: { generalise = "band", width = 10 }')
        if field.type == "integer" and not field.sealed and (int(width) != width or width < 2):  # noqa: PLR2004
            raise ConfigurationError("anonymize: a band of whole numbers is 2 wide or more, and a whole number")
        return Strategy("generalise", argument, width)
    if argument == "age":
        _fits(field, _TEXTS, "an age band")
        wide = _BAND if width is None else width
        if type(wide) is not int or not 2 <= wide <= _OLDEST:  # noqa: PLR2004
            raise ConfigurationError(f"anonymize: an age band is 2 to {_OLDEST} years wide")
        return Strategy("generalise", argument, wide)
    _fits(field, _TEXTS if argument == "postcode" else (*_DATES, *_TEXTS), argument)
    return Strategy("generalise", argument)


def _noise(argument: Any, _: Any, field: Field) -> Strategy:
    dated = isinstance(argument, str)
    if dated:
        from datavern.privacy.values.periods import Period  # noqa: PLC0415  (few fields have noise)

        problem = ""
        try:
            period = Period.parse(argument)
            argument = period.days
            problem = "months" if period.months else ""
        except ConfigurationError:
            problem = "no period"
        if problem:
            raise ConfigurationError('anonymize: the noise of a date is in days or weeks: { noise = "30d" }')
    elif isinstance(argument, bool) or not isinstance(argument, int | float) or not 0 < argument < math.inf:
        raise ConfigurationError('anonymize: noise says how much at the most: { noise = 5 }, { noise = "30d" }')
    _fits(field, _DATES if dated else _NUMBERS, "noise of days" if dated else "noise in numbers")
    if not field.sealed and field.type == "integer" and int(argument) != argument:
        raise ConfigurationError("anonymize: the noise of a whole number is one")
    return Strategy("noise", dt.timedelta(days=argument) if dated else argument)


def _fake(argument: Any, _: Any, field: Field) -> Strategy:
    kind = argument if argument is not None else field.kind
    if kind not in _FAKES:
        raise ConfigurationError(f'anonymize: fake is one of {", ".join(_FAKES)}: {{ fake = "name" }}')
    if field.kind in _KINDS and kind != field.kind:
        raise ConfigurationError(f"anonymize: the field's kind is {field.kind}, and the fake's {kind}")
    _fits(field, _TEXTS, "a fake")
    if field.unique and kind in ("name", "address", "postcode"):
        raise ConfigurationError(f"anonymize: made-up values of {kind} are few, and the field is unique")
    return Strategy("fake", kind)


def _bare(name: str, argument: Any) -> None:
    if argument is not None:
        raise ConfigurationError(f'anonymize: {name} stands alone: anonymize = "{name}"')


_MAKERS: Final[Mapping[str, Any]] = {
    "null": _null,
    "constant": _constant,
    "pseudonym": _pseudonym,
    "generalise": _generalise,
    "noise": _noise,
    "fake": _fake,
}


class Anonymizer:
    """The strategies at work, for one person.

    Args:
        today: the day from which ages are counted.

    The key of pseudonyms is drawn here and held nowhere else: it is gone with this object. So the same value of one
    person gets the same pseudonym in one erasure, and another one for everybody else and every other time.
    """

    __slots__ = ("_key", "_today")

    def __init__(self, today: dt.date) -> None:
        self._key = secrets.token_bytes(32)
        self._today = today

    def __call__(self, strategy: Strategy, name: str, value: Any, *, kind: str | None = None) -> Any:
        """What stands in a field afterwards. Nothing stays nothing, but for a constant.

        Args:
            strategy: the field's.
            name: the field's.
            value: as it was, opened.
            kind: the type of the column, in `Field`'s words, where it is not sealed.

        Raises:
            Unfit: the value is none that the strategy is for.
        """
        if strategy.name == "constant":
            return strategy.argument
        if value is None or strategy.name == "null":
            return None
        if strategy.name == "pseudonym":
            return self._pseudonym(name, value, kind)
        if strategy.name == "generalise":
            return self._general(strategy, value, kind)
        if strategy.name == "noise":
            return _with_noise(value, strategy.argument, kind)
        from datavern.privacy.values.fakes import fake  # noqa: PLC0415  (lists of names)

        return fake(strategy.argument)

    def _pseudonym(self, name: str, value: Any, kind: str | None) -> str | bytes:
        said = value if isinstance(value, bytes) else repr(value).encode()
        digest = hmac.digest(self._key, name.encode() + b"\0" + said, "sha256")[:16]
        return digest if kind == "bytes" or isinstance(value, bytes) else digest.hex()

    def _general(self, strategy: Strategy, value: Any, kind: str | None) -> Any:
        how = strategy.argument
        if how == "postcode":
            if not isinstance(value, str) or _POSTCODE.fullmatch(value.strip()) is None:
                raise Unfit("no Norwegian postcode")
            return value.strip()[:2]
        if how == "band":
            return _band(value, strategy.width)
        day = _date(value)
        if how == "age":
            return self._age(day, int(strategy.width))
        year = day.year if how == "year" else day.year // 10 * 10
        first = dt.date(max(year, dt.MINYEAR), 1, 1)
        if isinstance(value, str) and kind not in _DATES:
            return f"{year:04}" if how == "year" else f"{year:04}-{year + 9:04}"
        return _as(value, first)

    def _age(self, born: dt.date, width: int) -> str:
        today = self._today
        age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
        if age < 0:
            raise Unfit("a day in the future")
        if age >= _OLDEST:
            return f"{_OLDEST}+"
        low = age // width * width
        return f"{low}-{min(low + width, _OLDEST) - 1}"


def _band(value: Any, width: float) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        raise Unfit("no number")
    if isinstance(value, Decimal):
        wide = Decimal(str(width))
        return (value / wide).to_integral_value(rounding="ROUND_FLOOR") * wide
    if isinstance(value, int) and int(width) == width:
        return value // int(width) * int(width)
    return math.floor(value / width) * width


def _with_noise(value: Any, most: Any, kind: str | None) -> Any:
    if isinstance(most, dt.timedelta):
        if isinstance(value, str) and kind not in _DATES:
            raise Unfit("no date")
        shift = dt.timedelta(days=secrets.randbelow(2 * most.days + 1) - most.days)
        try:
            if isinstance(value, dt.datetime):
                return value + shift
            return _as(value, _date(value) + shift)
        except OverflowError:
            raise Unfit("a day that no calendar has") from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        raise Unfit("no number")
    if isinstance(value, int):
        whole = int(most)
        return value + secrets.randbelow(2 * whole + 1) - whole
    shift_by = (2 * (secrets.randbelow(_PRECISION + 1) / _PRECISION) - 1) * most
    return value + Decimal(str(shift_by)) if isinstance(value, Decimal) else value + shift_by


def _date(value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value[:10])
        except ValueError:
            pass
    raise Unfit("no date")


def _as(value: Any, day: dt.date) -> Any:
    """A day in the form in which the value stood there."""
    if isinstance(value, dt.datetime):
        return dt.datetime(day.year, day.month, day.day, tzinfo=value.tzinfo)
    if isinstance(value, str):
        return day.isoformat() + ("T00:00:00+00:00" if len(value) > 10 else "")  # noqa: PLR2004  (a date's length)
    return day
