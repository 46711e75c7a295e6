"""The record of processing activities as a page, in Markdown: every heading of GDPR Art. 30(1)(a) to (g)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datavern.privacy.datamap.information import PERSON
from datavern.privacy.processing.values import Activity, Controller, Missing

__all__ = ["lines_of"]

_MISSING = "*missing*"


def lines_of(
    of: Controller, activities: Sequence[Activity], security: Sequence[str], missing: Sequence[Missing], *, made_at: str
) -> Iterator[str]:
    """The page, line by line.

    Args:
        of: who is responsible.
        activities: one for each dataset.
        security: measures that hold for all of them.
        missing: what nobody said.
        made_at: when the record was made, RFC 3339.
    """
    yield "# Record of processing activities"
    yield ""
    yield f"GDPR Art. 30(1). Made {made_at}, from the data map."
    yield ""
    yield "## (a) The controller"
    yield ""
    yield f"- Controller: {_said(of.name)}"
    yield f"- Contact: {_said(of.contact)}"
    yield f"- Representative (Art. 27): {_text(of.representative) or 'none named'}"
    yield f"- Data protection officer: {_said(of.dpo)}"
    yield f"- Joint controllers (Art. 26): {_listed(of.joint_controllers) or 'none named'}"
    for one in activities:
        yield from _of_activity(one)
    yield ""
    yield "## (g) Security measures that hold for all of it"
    yield ""
    yield from _bullets(security)
    yield ""
    yield "## What is missing"
    yield ""
    if not missing:
        yield "Nothing: every heading of Art. 30(1) is answered."
    for lack in missing:
        yield f"- ({lack.point}) `{_text(lack.part)}`: {_text(lack.what)}. Say it with `{lack.setting}`."


def _of_activity(one: Activity) -> Iterator[str]:
    yield ""
    yield f"## {_text(one.dataset)}"
    yield ""
    yield f"`{_text(one.store)}` in the database `{_text(one.database)}`."
    yield ""
    yield "### (b) Purposes"
    yield ""
    yield from _bullets([f"{purpose.name}: {purpose.basis or _MISSING}" for purpose in one.purposes])
    yield ""
    yield "### (c) Whom it is about, and what kinds of data"
    yield ""
    yield f"- Whom: {_listed(one.about) or _MISSING}"
    for data in one.data:
        mark = f" **special category, Art. {data.article}**" if data.article == 9 else ""  # noqa: PLR2004  (Art. 9)
        mark = f" **Art. {data.article}**" if data.article is not None and not mark else mark
        words = f"{data.category} ({data.words})" if data.category else _MISSING
        yield f"- {_text(words)}{mark}" + (f": {_listed(data.fields)}" if data.fields else "")
    if not one.data:
        yield f"- {_MISSING}"
    if one.exemptions and any(data.article is not None for data in one.data):
        yield f"- Why special categories may be used: {_listed(one.exemptions)}"
    yield ""
    yield "### (d) Recipients"
    yield ""
    yield from _bullets(one.recipients)
    yield ""
    yield "### (e) Transfers to third countries"
    yield ""
    yield from _bullets(
        [f"{t.place}, {t.country or 'country not known'}: {t.safeguard or _MISSING}" for t in one.transfers],
        none="None: no place is known outside of the EEA that it can reach.",
    )
    yield ""
    yield "### (f) Time limits for erasure"
    yield ""
    yield f"- Kept: {_said(one.time_limit or '')}"
    yield f"- A person's rows, on erasure: {one.ends}"
    yield ""
    yield "### (g) Security measures"
    yield ""
    yield from _bullets(one.security)
    yield ""
    yield "### What people are told besides (Arts. 13-15)"
    yield ""
    yield f"- Where it comes from: {'; '.join(_source(*said) for said in one.sources.items()) or 'not said (`source`)'}"
    automated = _text(one.automated_decisions or "") or "not said (`automated_decisions`)"
    yield f"- Automated decisions, profiling among them: {automated}"


def _source(what: str, sources: Sequence[str]) -> str:
    named = _listed(["the person" if source == PERSON else source for source in sources])
    return f"{_text(what)}: {named}" if what else named


def _said(text: str) -> str:
    return _text(text) or _MISSING


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_text, names))


def _bullets(lines: Sequence[str], *, none: str = f"- {_MISSING}") -> list[str]:
    return [f"- {_text(line)}" for line in lines] or [none]


def _text(text: str) -> str:
    """Text of somebody's own as it stands on a page: on one line, and what Markdown would take for its own escaped."""
    one_line = " ".join(str(text).split())
    if one_line == _MISSING:
        return one_line
    return "".join(f"\\{c}" if c in "\\`[]<>#|" else c for c in one_line)
