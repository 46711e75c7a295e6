"""Norwegian word stems, for the search of an engine that has none.

SQLite's full-text index knows English stems alone. So the index holds the words as they are, and a search asks it for
every word in it that has the stem of the word that is looked for: those are found with `norwegian_stem`.

Source: the Norwegian algorithm of Snowball, https://snowballstem.org/algorithms/norwegian/stemmer.html. PostgreSQL
stems with the same algorithm; its versions differ in single words.
"""

from __future__ import annotations

__all__ = ["STOP_WORDS", "norwegian_stem"]

_VOWELS = frozenset("aeiouyæåø")
_BEFORE_S = frozenset("bcdfghjlmnoprtvyz")
_MAIN = frozenset(
    """
    a e ede ande ende ane ene hetene en heten ar er heter as es edes endes enes hetenes ens hetens ers ets et het ast
    s erte ert
    """.split()  # noqa: SIM905  (endings are read more easily than as many strings)
)
_OTHER = frozenset(("leg", "eleg", "ig", "eig", "lig", "elig", "els", "lov", "elov", "slov", "hetslov"))
_LONGEST = 7
_HEAD = 3  # letters that no suffix is cut from

STOP_WORDS = frozenset(
    """
    alle at av bare begge ble blei blir blitt bli både da de deg dei deim deira dem den denne der dere deres det dette
    di din disse ditt du eg ein eit eller elles en enn er et ett etter for fordi fra før ha hadde han hans har henne
    hennes her ho hun hva hvem hver hvilke hvilken hvis hvor hvordan hvorfor i ikke ingen inn ja jeg kan kom kun kunne
    man mange me med meg mellom men mi min mine mitt mot mykje ned no noe noen nokon noko nå når og også om opp oss over
    på samme seg selv si sia sin sine sitt skal skulle slik so som så til um upp ut uten var ved vi vil ville vår være
    vært å
    """.split()  # noqa: SIM905  (a hundred words are read more easily than a hundred strings)
)
"""Words that stand in every text, and say nothing about any; left out unless they stand in quotes."""


def norwegian_stem(word: str) -> str:
    """What is left of a lower-case word when its endings are taken off. The word always begins with it."""
    start = _region(word)
    word = _without_main(word, start)
    if len(word) - 2 >= start and word.endswith(("dt", "vt")):
        word = word[:-1]
    ending = _ending(word, start, _OTHER)
    return word[: len(word) - len(ending)]


def _region(word: str) -> int:
    """Where endings may begin: after the first consonant that follows a vowel, and after three letters."""
    for i in range(1, len(word)):
        if word[i - 1] in _VOWELS and word[i] not in _VOWELS:
            return max(i + 1, _HEAD)
    return len(word)


def _ending(word: str, start: int, endings: frozenset[str]) -> str:
    """The longest of these endings that the region holds."""
    for size in range(min(_LONGEST, len(word) - start), 0, -1):
        if word[-size:] in endings:
            return word[-size:]
    return ""


def _without_main(word: str, start: int) -> str:
    ending = _ending(word, start, _MAIN)
    if ending == "s":
        before = word[-2:-1]
        valid = before in _BEFORE_S or (before == "k" and word[-3:-2] not in _VOWELS)
        return word[:-1] if valid else word
    if ending in {"erte", "ert"}:
        return word[: len(word) - len(ending) + 2]
    return word[: len(word) - len(ending)]
