"""A certificate in words, Norwegian and English: headings, paragraphs, tables; how they look is another module's.

What is signed is the English text of the certificate. What is said of it here in Norwegian is a translation; a sentence
that has none stands as it was signed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.privacy.certificate.words import day, moment, said, words
from datavern.privacy.pages.blocks import Block, Facts, Heading, Language, Listing, Mono, Page, Paragraph, Table

if TYPE_CHECKING:
    from datavern.privacy.certificate.certificate import Certificate

__all__ = ["page_of"]


def page_of(certificate: Certificate, language: Language) -> Page:
    """The certificate as a page.

    Args:
        certificate: erased or shredded.
        language: "nb" (bokmål) or "en".

    Raises:
        ConfigurationError: no such language.
    """
    body = certificate.body
    organisation, request = str(body.get("organisation") or ""), str(body.get("request") or "")
    blocks = tuple(_lines(certificate, language))
    return Page(_title(certificate, language), organisation, language, blocks, request)


def _title(certificate: Certificate, language: Language) -> str:
    """What the page is called."""
    word = words(language)
    kind = str(certificate.body.get("statement", ""))
    return word(kind) if kind in ("erased", "shredded") else kind


def _lines(certificate: Certificate, language: Language) -> Iterator[Block]:
    """The certificate, part by part."""
    body, word = certificate.body, words(language)
    kind = str(body.get("statement", ""))
    if kind in ("erased", "shredded"):
        yield Paragraph(word(f"lead-{kind}", organisation=body.get("organisation") or word("we")), strong=True)
    yield Facts(_facts(body, word, language))
    stores = [store for store in body.get("stores") or () if isinstance(store, Mapping)]
    if stores:
        yield Heading(word("done-heading"))
        yield Table(
            word("done-caption"),
            [word("place"), word("found"), word("done")],
            [[str(s.get("dataset", "")), _number(s.get("found"), word), _done(s, word, language)] for s in stores],
            (38, 22, 40),
        )
        notes = [(f"{s.get('dataset')}: {said(n, language)[0]}", said(n, language)[1]) for s in stores
                 for n in s.get("notes") or ()]  # fmt: skip
        if notes:
            yield Paragraph(f"{word('notes')}:")
            yield Listing(notes)
        yield from _stays(stores, word, language)
    recipients = body.get("recipients") or {}
    if recipients:
        yield Heading(word("recipients-heading"))
        rows = [[label, ", ".join(map(str, names))] for label, names in recipients.items()]
        yield Table(word("recipients-caption"), [word("place"), word("recipients")], rows, (40, 60))
    keys = body.get("keys") or ()
    yield Heading(word("keys-heading"))
    if keys:
        yield Table(
            word("keys-caption"),
            [word("key"), word("dataset"), word("at")],
            [[str(k.get("id", "")), str(k.get("dataset", "")), moment(k.get("at"), language)] for k in keys],
            (46, 24, 30),
            code=(0,),
        )
    else:
        yield Paragraph(word("keys-none"))
    yield from _rotation(body, word, language)
    if body.get("audit"):
        yield Heading(word("audit-heading"))
        yield from _proofs(certificate, word, language)
    for heading, name in (("claims-heading", "claims"), ("limits-heading", "limits")):
        if body.get(name):
            yield Heading(word(heading))
            yield Listing([said(line, language) for line in body[name]])
    yield Heading(word("rights-heading"))
    yield Paragraph(word("rights"))
    yield Heading(word("verify-heading"))
    yield Paragraph(word("verify"))
    yield Mono("datavern subject verify certificate.json --verifier verifier.txt")
    signature = base64.b64encode(certificate.signature).decode()
    yield Facts([(word("signed-by"), certificate.key), (word("signature"), signature)])
    if word("translated"):
        yield Paragraph(word("translated"))


def _facts(body: Mapping[str, Any], word: Any, language: Language) -> list[tuple[str, str]]:
    facts = [
        (word("organisation"), str(body.get("organisation") or word("unsigned"))),
        (word("subject"), str(body.get("subject", ""))),
    ]
    if body.get("request"):
        facts.append((word("request"), str(body["request"])))
    if body.get("completes"):
        facts.append((word("completes"), str(body["completes"])))
    if body.get("received"):
        facts.append((word("received"), day(body["received"], language)))
    if body.get("deadline"):
        due = day(body["deadline"], language)
        facts.append((word("deadline"), word("extended", day=due) if body.get("extended") else due))
    if body.get("completed"):
        facts.append((word("completed"), moment(body["completed"], language)))
    if body.get("since"):
        facts.append((word("since"), moment(body["since"], language)))
    identity = body.get("identity")
    if isinstance(identity, Mapping):
        by = f" ({identity['verified_by']})" if identity.get("verified_by") else ""
        facts.append((word("identity"), f"{identity.get('method')}{by}, {moment(identity.get('at'), language)}"))
    return facts


def _stays(stores: Sequence[Mapping[str, Any]], word: Any, language: Language) -> Iterator[Block]:
    yield Heading(word("stays-heading"))
    kept = [
        [str(s.get("dataset", "")), str(k.get("rows", "")), str(k.get("why", "")), day(k.get("until"), language)]
        for s in stores
        for k in s.get("kept") or ()
    ]
    if kept:
        headers = [word("place"), word("records"), word("why"), word("until")]
        yield Table(word("stays-caption"), headers, kept, (28, 16, 36, 20))
    else:
        yield Paragraph(word("stays-nothing"))
    left = [[str(s.get("dataset", "")), ", ".join(map(str, s["left"]))] for s in stores if s.get("left")]
    if left:
        yield Table(word("left-caption"), [word("place"), word("columns")], left, (40, 60))


def _rotation(body: Mapping[str, Any], word: Any, language: Language) -> Iterator[Block]:
    rotation = body.get("rotation")
    if isinstance(rotation, Mapping):
        yield Heading(word("rotation-heading"))
        yield Paragraph(
            word(
                "rotation",
                previous=rotation.get("previous"),
                epoch=rotation.get("epoch"),
                destroyed=moment(rotation.get("destroyed"), language),
                gone=moment(rotation.get("gone"), language),
            )
        )
    recoveries = body.get("recoveries") or ()
    if recoveries:
        rows = [[str(r.get("id")), moment(r.get("destroyed"), language), str(r.get("said"))] for r in recoveries]
        yield Table(word("recoveries-caption"), [word("recovery"), word("at"), word("said")], rows, (40, 30, 30))


def _proofs(certificate: Certificate, word: Any, language: Language) -> Iterator[Block]:
    if not certificate.proofs:
        yield Paragraph(word("audit-none", request=certificate.body.get("request", "")))
        return
    from datavern.audit.checkpoint import Checkpoint  # noqa: PLC0415  (only where there are proofs)

    rows = []
    for proof in certificate.proofs:
        entry = proof["entry"]
        checkpoint = Checkpoint.read(proof["checkpoint"])
        what = entry["action"] if entry.get("dataset") is None else f"{entry['action']}: {entry['dataset']}"
        sealed = moment(checkpoint.at, language)
        rows.append([what, entry["entry_id"], word("place-of", place=proof["position"], size=checkpoint.size), sealed])
    headers = [word("done"), word("entry"), word("position"), word("sealed")]
    yield Table(word("audit-caption"), headers, rows, (28, 34, 14, 24), code=(1,))


def _number(found: Any, word: Any) -> str:
    if not found:
        return str(word("nothing"))
    return str(word("one-row") if found == 1 else word("rows", number=found))


def _done(store: Mapping[str, Any], word: Any, language: Language) -> str:
    done = store.get("done") or {}
    text = "; ".join(f"{said(what, language)[0]}: {number}" for what, number in done.items())
    return text or ("–" if store.get("found") else str(word("nothing")))
