"""Values that are made up: what stands for a name, an address or a number where a row is to look like one.

Nobody has them: personal numbers are of the series that Skatteetaten keeps for synthetic people (Tenor: month + 80);
telephone numbers begin with +47 01, which the Norwegian numbering plan gives to nobody; mail goes to domains that are
for examples. Names, streets and postcodes are common ones, put together at random.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from datavern.contracts.identity import control_digits
from datavern.privacy.values.names import FAMILY, GIVEN

__all__ = ["PLACES", "STREETS", "fake", "synthetic_number"]

# The order is part of what `datavern.testing.people` promises: the same people for the same seed.
STREETS: Final = (
    "Storgata", "Kirkeveien", "Skolegata", "Strandgata", "Bjørkeveien", "Granveien", "Furuveien", "Solbakken",
    "Åsveien", "Elveveien", "Fjordveien", "Havnegata", "Jernbanegata", "Industrivegen", "Sentrumsvegen",
    "Møllergata", "Nygata", "Øvregata", "Nedre gate", "Parkveien", "Ringvegen", "Rognelia", "Sjøgata", "Tverrveien",
    "Ærfuglveien", "Fjellvegen", "Kongens gate", "Dronningens gate", "Markvegen", "Lyngveien", "Heggelia",
    "Myrvegen", "Bekkeveien", "Åkerveien", "Ørneveien", "Badjenjárga", "Deanugeaidnu", "Ávjovárgeaidnu",
)  # fmt: skip
PLACES: Final = (
    ("0150", "Oslo"), ("0352", "Oslo"), ("0560", "Oslo"), ("5003", "Bergen"), ("5034", "Bergen"),
    ("7010", "Trondheim"), ("7030", "Trondheim"), ("4006", "Stavanger"), ("3015", "Drammen"),
    ("1606", "Fredrikstad"), ("4608", "Kristiansand"), ("9008", "Tromsø"), ("6002", "Ålesund"), ("8006", "Bodø"),
    ("3116", "Tønsberg"), ("3210", "Sandefjord"), ("3256", "Larvik"), ("3717", "Skien"), ("2317", "Hamar"),
    ("2609", "Lillehammer"), ("2815", "Gjøvik"), ("4307", "Sandnes"), ("5527", "Haugesund"), ("6413", "Molde"),
    ("6509", "Kristiansund"), ("6800", "Sunnfjord"), ("7600", "Levanger"), ("7713", "Steinkjer"),
    ("7800", "Namsos"), ("8514", "Narvik"), ("8622", "Rana"), ("9405", "Harstad"), ("9510", "Alta"),
    ("9600", "Hammerfest"), ("9730", "Karasjok"), ("9520", "Kautokeino"), ("9845", "Tana"),
    ("9900", "Sør-Varanger"), ("9800", "Vadsø"), ("7374", "Røros"), ("3660", "Rjukan"), ("6160", "Sula"),
    ("1430", "Ås"), ("1870", "Ørje"), ("5700", "Voss"), ("5750", "Ullensvang"), ("4480", "Kvinesdal"),
    ("9050", "Balsfjord"),
)  # fmt: skip
_FIRST: Final = dt.date(1940, 1, 1).toordinal()
_LAST: Final = dt.date(2010, 12, 31).toordinal()
_LATE: Final = 2000
_HUNDREDS: Final = 500


def synthetic_number(born: dt.date, individual: int) -> str | None:
    """The Tenor number of that day with that individual number; None where no control digits fit.

    Args:
        born: from 1940 on.
        individual: three digits: 0 to 499 before the year 2000, 500 to 999 from it on.
    """
    nine = f"{born.day:02}{born.month + 80}{born.year % 100:02}{individual:03}"
    control = control_digits(nine)
    return None if control is None else nine + control


def fake(kind: str) -> str:
    """A made-up value, drawn anew each time.

    Args:
        kind: "name", "email", "phone", "address", "postcode" or "fodselsnummer".
    """
    return _MAKERS[kind]()


def _name() -> str:
    return f"{secrets.choice(GIVEN)} {secrets.choice(FAMILY)}"


def _number() -> str:
    while True:
        born = dt.date.fromordinal(_FIRST + secrets.randbelow(_LAST - _FIRST + 1))
        individual = secrets.randbelow(_HUNDREDS) + (_HUNDREDS if born.year >= _LATE else 0)
        number = synthetic_number(born, individual)
        if number is not None:
            return number


_MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "name": _name,
    "email": lambda: f"{secrets.token_hex(8)}@example.no",
    "phone": lambda: f"+4701{secrets.randbelow(1_000_000):06}",
    "address": lambda: f"{secrets.choice(STREETS)} {secrets.randbelow(120) + 1}",
    "postcode": lambda: secrets.choice(PLACES)[0],
    "fodselsnummer": _number,
}
