"""Common names in Norway: what a column of names is told by, and what synthetic people are called."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FAMILY", "GIVEN", "is_name"]

# The order is part of what `datavern.testing.people` promises: the same people for the same seed.
GIVEN: Final = (
    "Anne", "Inger", "Kari", "Marit", "Ingrid", "Liv", "Eva", "Berit", "Astrid", "Bjørg", "Hilde", "Solveig", "Åse",
    "Randi", "Nina", "Wenche", "Elisabeth", "Kristin", "Grete", "Bente", "Ida", "Silje", "Hanne", "Linda", "Gunn",
    "Turid", "Tone", "Siri", "Tove", "Anita", "Camilla", "Heidi", "Ragnhild", "Laila", "Ellen", "Aud", "Gerd",
    "Sissel", "Mona", "Nora", "Emma", "Thea", "Sara", "Frida", "Maja", "Sofie", "Ingeborg", "Åshild", "Øydis",
    "Ålaug", "Sæunn", "Jan", "Per", "Bjørn", "Ole", "Lars", "Kjell", "Knut", "Arne", "Svein", "Thomas", "Hans",
    "Geir", "Tor", "Morten", "Terje", "Odd", "Erik", "Martin", "Andreas", "John", "Anders", "Rune", "Trond", "Tore",
    "Daniel", "Jon", "Kristian", "Marius", "Magnus", "Stian", "Øyvind", "Øystein", "Håkon", "Pål", "Åge", "Asbjørn",
    "Torbjørn", "Jørgen", "Sjur", "Børge", "Vidar", "Gunnar", "Sverre", "Einar", "Olav", "Sindre", "Eirik", "Emil",
    "Jakob", "Noah", "Filip", "Ánte", "Áilu", "Áilo", "Niillas", "Mihkkal", "Máhtte", "Lásse", "Ánde", "Jovnna",
    "Issát", "Heaika", "Biera", "Máret", "Biret", "Ravdna", "Risten", "Elle", "Sárá", "Inga", "Káre", "Gáddjá",
    "Áile", "Rávdná", "Márjá",
)  # fmt: skip
FAMILY: Final = (
    "Hansen", "Johansen", "Olsen", "Larsen", "Andersen", "Pedersen", "Nilsen", "Kristiansen", "Jensen", "Karlsen",
    "Johnsen", "Pettersen", "Eriksen", "Berg", "Haugen", "Hagen", "Johannessen", "Andreassen", "Jacobsen", "Dahl",
    "Jørgensen", "Henriksen", "Lund", "Halvorsen", "Sørensen", "Jakobsen", "Moen", "Gundersen", "Iversen", "Strand",
    "Solberg", "Svendsen", "Eide", "Knutsen", "Martinsen", "Paulsen", "Bakken", "Kristoffersen", "Mathisen", "Lie",
    "Amundsen", "Nguyen", "Rasmussen", "Ali", "Lunde", "Solheim", "Berge", "Moe", "Nygård", "Bakke", "Kristensen",
    "Fredriksen", "Holm", "Lien", "Hauge", "Christensen", "Andresen", "Nielsen", "Knudsen", "Evensen", "Sæther",
    "Aas", "Myhre", "Hanssen", "Haugland", "Thomassen", "Sivertsen", "Simonsen", "Danielsen", "Berntsen", "Sandvik",
    "Rønning", "Arnesen", "Næss", "Vik", "Antonsen", "Haug", "Ellingsen", "Thorsen", "Edvardsen", "Birkeland",
    "Isaksen", "Gulbrandsen", "Ruud", "Aasen", "Strøm", "Myklebust", "Tangen", "Ødegård", "Eliassen", "Helland",
    "Bøe", "Jenssen", "Aune", "Mikkelsen", "Tveit", "Brekke", "Abrahamsen", "Madsen", "Bråten", "Sørlie", "Øvrebø",
    "Åsheim", "Bjørnstad", "Fjærli", "Kvæven", "Utsi", "Gaup", "Hætta", "Somby", "Guttorm", "Balto", "Bær",
    "Mienna", "Boine", "Buljo", "Turi", "Skum", "Oskal", "Vuolab", "Eira", "Bongo", "Triumf", "Valkeapää", "Magga",
    "Sokki", "Partapuoli", "Siri", "Nystø", "Ánot",
)  # fmt: skip
MORE: Final = (
    "Aksel", "Alexander", "Amalie", "Amir", "Anja", "Anna", "Arild", "Benjamin", "Birgit", "Cecilie", "Christian",
    "Christine", "Dag", "David", "Egil", "Elin", "Elias", "Ella", "Espen", "Fatima", "Fredrik", "Frode", "Grethe",
    "Gro", "Haakon", "Harald", "Helene", "Helge", "Henrik", "Ingvild", "Isak", "Ivar", "Jonas", "Julie", "Kai", "Karin",
    "Kim", "Kine", "Kristine", "Kristoffer", "Leif", "Lene", "Line", "Lise", "Lucas", "Maria", "Marie", "Markus",
    "Mathias", "May", "Merete", "Mohammad", "Mohammed", "Monica", "Nils", "Odin", "Oda", "Oliver", "Oskar", "Oscar",
    "Petter", "Ragnar", "Roar", "Roger", "Roy", "Sander", "Sebastian", "Selma", "Sigrid", "Sigurd", "Simen", "Steinar",
    "Stein", "Stine", "Tobias", "Tom", "Tommy", "Trine", "Unni", "Victoria", "Vilde", "Werner", "William", "Yngve",
    "Zahra",
)  # fmt: skip
"""Given names that synthetic people do not have."""

_GIVEN = frozenset(name.lower() for name in (*GIVEN, *MORE))
_FAMILY = frozenset(name.lower() for name in FAMILY)
_PARTS = re.compile(r"[^\W\d_]+")
_PATRONYM = re.compile(r"[^\W\d_]{3,}(?:sen|ssen|datter|stad|rud|vik|berg|haug|heim|land)")


def is_name(text: str) -> bool:
    """Whether a text reads as a person's name: a common given name, with a family name after it or alone."""
    parts = _PARTS.findall(text.lower())
    if not parts or len(parts) > 6:  # noqa: PLR2004  (longer is a sentence)
        return False
    if parts[0] in _GIVEN:
        return len(parts) == 1 or parts[-1] in _FAMILY or _PATRONYM.fullmatch(parts[-1]) is not None
    return parts[-1] in _FAMILY and len(parts) > 1
