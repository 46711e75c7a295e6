"""The words of a certificate's page, Norwegian and English; and dates as people write them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from datavern.privacy.pages.blocks import Language
from datavern.privacy.pages.speech import words_in

__all__ = ["day", "moment", "said", "words"]

_WORDS: Final[dict[str, tuple[str, str]]] = {
    "erased": ("Bekreftelse på sletting", "Certificate of erasure"),
    "shredded": ("Bekreftelse på at slettede data er utilgjengelige", "Statement that erased data is beyond reach"),
    "lead-erased": (
        "{organisation} bekrefter at personopplysningene om personen nedenfor er slettet slik denne siden viser.",
        "{organisation} confirms that the personal data about the person below was erased as this page shows.",
    ),
    "lead-shredded": (
        (
            "{organisation} bekrefter at det som var forseglet om personen nedenfor, ikke kan åpnes av noen, heller "
            "ikke fra gamle sikkerhetskopier."
        ),
        (
            "{organisation} confirms that nobody can open what was sealed about the person below, not from old backups "
            "either."
        ),
    ),
    "we": ("Virksomheten", "The organisation"),
    "organisation": ("Behandlingsansvarlig", "Controller"),
    "subject": ("Personen, som registrert", "The person, as on record"),
    "request": ("Henvendelse nr.", "Request"),
    "completes": ("Fullfører henvendelse nr.", "Completes request"),
    "received": ("Mottatt", "Received"),
    "deadline": ("Svarfrist", "Answer due by"),
    "extended": ("{day} (forlenget, GDPR art. 12 nr. 3)", "{day} (extended, GDPR Art. 12(3))"),
    "completed": ("Fullført", "Completed"),
    "since": ("Utilgjengelig fra", "Beyond reach since"),
    "identity": ("Identitet fastslått", "Identity verified"),
    "done-heading": ("Hva som ble funnet, og hva som ble gjort", "What was found, and what was done"),
    "done-caption": ("Hvert sted der opplysninger kan ligge", "Every place where data may lie"),
    "place": ("Sted", "Place"),
    "found": ("Funnet", "Found"),
    "done": ("Gjort", "Done"),
    "nothing": ("ingenting", "nothing"),
    "nothing-found": ("Ingenting ble funnet om denne personen.", "Nothing was found about this person."),
    "one-row": ("1 oppføring", "1 record"),
    "rows": ("{number} oppføringer", "{number} records"),
    "notes": ("Merknader", "Notes"),
    "stays-heading": ("Hva som blir stående, hvorfor og til når", "What stays, why, and until when"),
    "stays-nothing": (
        "Ingen oppføringer om personen er beholdt.",
        "No record about the person is kept.",
    ),
    "stays-caption": ("Oppføringer som loven krever at vi beholder", "Records that the law asks us to keep"),
    "records": ("Antall", "Records"),
    "why": ("Hvorfor (rettslig grunnlag)", "Why (legal basis)"),
    "until": ("Til og med", "Until"),
    "left-caption": ("Felter som står som før, i oppføringer som ble stående", "Columns that stand as they were"),
    "columns": ("Felter", "Columns"),
    "recipients-heading": ("Mottakere som skal varsles", "Recipients to be told"),
    "recipients-caption": (
        "Hvem opplysningene er utlevert til (GDPR art. 19)",
        "Who was given the data (GDPR Art. 19)",
    ),
    "recipients": ("Mottakere", "Recipients"),
    "keys-heading": ("Nøkler som er ødelagt", "Keys that were destroyed"),
    "keys-none": ("Det var ingen nøkler å ødelegge.", "There were no keys to destroy."),
    "keys-caption": (
        "Uten nøkkelen kan ingen åpne det som var forseglet med den",
        "Without its key, nobody can open what was sealed under it",
    ),
    "key": ("Nøkkel", "Key"),
    "dataset": ("Datasett", "Dataset"),
    "at": ("Tidspunkt", "Time"),
    "rotation-heading": ("Hvordan nøklene ble utilgjengelige", "How the keys got beyond reach"),
    "rotation": (
        "Hovednøkkelen for periode {previous} ble ødelagt {destroyed} og var borte {gone}; periode {epoch} kom etter.",
        "The epoch key {previous} was destroyed {destroyed} and gone {gone}; epoch {epoch} took its place.",
    ),
    "recoveries-caption": ("Gjenopprettingsandeler som er ødelagt", "Recovery shares that were destroyed"),
    "recovery": ("Gjenoppretting", "Recovery"),
    "said": ("Oppgitt av", "Said by"),
    "audit-heading": ("Bevis i revisjonsloggen", "Proof in the audit log"),
    "audit-none": (
        (
            "Loggen var ikke forseglet da bekreftelsen ble skrevet ut. Når den er det, følger bevisene med: "
            "datavern subject certificate {request}"
        ),
        (
            "The log was not sealed when this was written. Once it is, the proofs come with it: "
            "datavern subject certificate {request}"
        ),
    ),
    "audit-caption": (
        "Innførsler om slettingen i den forseglede loggen, med signert kontrollpunkt",
        "Entries about the erasure in the sealed log, with its signed checkpoint",
    ),
    "entry": ("Innførsel", "Entry"),
    "position": ("Plass", "Position"),
    "place-of": ("{place} av {size}", "{place} of {size}"),
    "sealed": ("Forseglet", "Sealed"),
    "claims-heading": ("Hva dette bekrefter", "What this states"),
    "limits-heading": ("Hva dette ikke sier", "What this does not state"),
    "rights-heading": ("Rettighetene dine", "Your rights"),
    "rights": (
        (
            "Er du uenig, kan du ta kontakt med oss. Du kan klage til Datatilsynet (datatilsynet.no; GDPR art. 77), og "
            "du kan bringe saken inn for domstolene (art. 79)."
        ),
        (
            "If you disagree, talk to us. You may complain to the Norwegian Data Protection Authority, Datatilsynet "
            "(datatilsynet.no; GDPR Art. 77), and you may take the matter to court (Art. 79)."
        ),
    ),
    "verify-heading": ("Slik kontrolleres bekreftelsen", "How to verify this"),
    "verify": (
        (
            "Denne siden er til å lese. Beviset er den signerte filen, som følger med siden. Den kan kontrolleres uten "
            "nett og uten tilgang til systemene våre, med virksomhetens offentlige nøkkel:"
        ),
        (
            "This page is for reading. The proof is the signed file, which comes with it. It can be verified without a "
            "network and without access to our systems, with the organisation's public key:"
        ),
    ),
    "signature": ("Signatur (Ed25519)", "Signature (Ed25519)"),
    "signed-by": ("Signert med", "Signed with"),
    "translated": (
        "Det som er signert, er den engelske teksten i filen; norsk tekst her er en oversettelse.",
        "",
    ),
    "unsigned": ("(ikke oppgitt)", "(not given)"),
}

_NORWEGIAN: Final[dict[str, str]] = {
    "What was found was treated as listed, and all of that had been done when this was signed.": (
        "Det som ble funnet, er behandlet som vist, og alt dette var gjort da bekreftelsen ble signert."
    ),
    "The listed keys were destroyed: no copy of the key store made from now on can open what was sealed under them.": (
        "Nøklene som er ført opp, er ødelagt: ingen kopi av nøkkellageret som tas fra nå av, kan åpne det som var "
        "forseglet med dem."
    ),
    "New data under the destroyed keys is refused in every process.": (
        "Nye opplysninger under de ødelagte nøklene avvises i alle prosesser."
    ),
    "Stores without tables were looked through again when no write under the listed keys could come.": (
        "Lagre uten tabeller ble gjennomgått på nytt da ingen flere skrivinger med disse nøklene kunne komme."
    ),
    "Backups made earlier, and replicas that lag, hold older copies of values that were never sealed, until pruned.": (
        "Eldre sikkerhetskopier, og replikaer som henger etter, har eldre kopier av verdier som aldri ble forseglet, "
        "til de ryddes bort."
    ),
    "They hold sealed values and their wrapped keys too, which open until the epoch key of that time is destroyed.": (
        "De har også forseglede verdier med sine innpakkede nøkler, som kan åpnes til hovednøkkelen fra den tiden er "
        "ødelagt."
    ),
    "A second statement, shredded, says from when not even those can bring the data back; this one does not.": (
        "En egen bekreftelse («shredded») sier fra når ikke engang de kan bringe opplysningene tilbake; denne gjør "
        "ikke det."
    ),
    "Columns that the data map does not name are listed as left, where the rows themselves stayed.": (
        "Felter som datakartet ikke nevner, er ført opp som stående der oppføringene selv ble stående."
    ),
    "Every copy of the listed keys that was ever stored was encrypted under an epoch key that is destroyed.": (
        "Hver kopi av nøklene som noen gang ble lagret, var kryptert med en hovednøkkel som er ødelagt."
    ),
    "What was sealed under them, in backups, replicas and logs too, opens for nobody from the stated moment on.": (
        "Det som var forseglet med dem, også i sikkerhetskopier, replikaer og logger, kan ikke åpnes av noen fra det "
        "oppgitte tidspunktet."
    ),
    "The lookup indexes were made anew under new keys, and the old lookup keys were destroyed the same way.": (
        "Søkeindeksene er laget på nytt med nye nøkler, og de gamle søkenøklene er ødelagt på samme måte."
    ),
    "Before that, every member of the key store had the new keys, and a copy of them was read back.": (
        "Før det hadde alle deler av nøkkellageret de nye nøklene, og en kopi av dem var lest tilbake."
    ),
    "Values that were never sealed stay in older backups and replicas until these are pruned.": (
        "Verdier som aldri ble forseglet, står i eldre sikkerhetskopier og replikaer til de ryddes bort."
    ),
    "Rows that the law keeps are sealed under a key of their own, which lives until the last of them ends.": (
        "Oppføringer som loven krever beholdt, er forseglet med en egen nøkkel, som lever til den siste av dem er "
        "borte."
    ),
    "It rests on every copy of the epoch key being where the organisation says: in the key ring, and in recoveries.": (
        "Det bygger på at hver kopi av hovednøkkelen er der virksomheten sier: i nøkkelringen og i gjenopprettinger."
    ),
    "Whoever copied a key, or what it opened, out of the application's memory while it lived has that copy.": (
        "Den som kopierte en nøkkel, eller det den åpnet, ut av programmets minne mens den levde, har den kopien."
    ),
    "Derived stores were erased by the application's own functions, whose word it is.": (
        "Avledede lagre er slettet av programmets egne funksjoner, og det er deres ord for det."
    ),
    "ended by the retention run, or before": "avsluttet av oppbevaringskjøringen, eller før",
    "the hold is released": "sperren er opphevet",
    "deleted": "slettet",
    "anonymized": "anonymisert",
    "emptied and marked as erased": "tømt og merket som slettet",
    "shredded with their keys": "gjort uleselig ved at nøklene er ødelagt",
    "shredded before, or never sealed": "uleselig fra før, eller aldri forseglet",
    "deleted, their retention had ended": "slettet, oppbevaringstiden var ute",
    "sealed anew under a retention key": "forseglet på nytt med en egen nøkkel for oppbevaring",
    "an access request of the subject still finds the rows that are kept": (
        "et innsynskrav fra personen finner fortsatt det som er beholdt"
    ),
}


def said(text: Any, language: Language) -> tuple[str, Language]:
    """A sentence of the certificate in that language where it can be said in it, and which language it is in."""
    if language == "nb" and str(text) in _NORWEGIAN:
        return _NORWEGIAN[str(text)], "nb"
    return str(text), "en"


def day(text: Any, language: Language) -> str:
    """A date as people write it: 28. november 2026, 28 November 2026."""
    try:
        date = dt.date.fromisoformat(str(text)[:10])
    except ValueError:
        return said(text, language)[0]
    months = _MONTHS[language]
    return f"{date.day}{'.' if language == 'nb' else ''} {months[date.month - 1]} {date.year}"


def moment(text: Any, language: Language) -> str:
    """A moment as people write it, in UTC."""
    try:
        at = dt.datetime.fromisoformat(str(text)).astimezone(dt.UTC)
    except ValueError:
        return str(text)
    clock = f"kl. {at:%H.%M}" if language == "nb" else f"{at:%H:%M}"
    return f"{day(at.date().isoformat(), language)} {clock} UTC"


_MONTHS: Final[dict[Language, Sequence[str]]] = {
    "nb": "januar februar mars april mai juni juli august september oktober november desember".split(),  # noqa: SIM905
    "en": "January February March April May June July August September October November December".split(),  # noqa: SIM905
}


def words(language: Language) -> Callable[..., str]:
    """What gives the words of that language by their name: see `words_in`."""
    return words_in(language, _WORDS)
