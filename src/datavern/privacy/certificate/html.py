"""A certificate as a web page, with the signed file in it."""

from __future__ import annotations

import re
from html import escape, unescape
from typing import TYPE_CHECKING

from datavern.privacy.certificate.text import page_of
from datavern.privacy.pages import html

if TYPE_CHECKING:
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.pages.blocks import Language

__all__ = ["embedded", "page"]

_FILE = {"nb": "Den signerte filen, certificate.json", "en": "The signed file, certificate.json"}
_EMBEDDED = re.compile(r'<pre id="certificate" lang="en">(.*?)</pre>', re.DOTALL)


def page(certificate: Certificate, language: Language = "nb") -> str:
    """The page, as HTML in UTF-8. The signed certificate is in it, letter by letter, so that it verifies by itself.

    Args:
        certificate: erased or shredded.
        language: "nb" or "en".

    Raises:
        ConfigurationError: no such language.
    """
    said = page_of(certificate, language)
    signed = f"""<details>
<summary>{_FILE[language]}</summary>
<pre id="certificate" lang="en">{escape(certificate.to_json())}</pre>
</details>
"""
    return html.page(said, signed)


def embedded(text: str) -> str:
    """The signed certificate in a page that `page` made; any other text as it is."""
    found = _EMBEDDED.search(text)
    return text if found is None else unescape(found[1])
