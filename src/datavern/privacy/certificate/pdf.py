"""A certificate as PDF, with the signed file attached. Needs the extra ``datavern[pdf]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datavern.privacy.certificate.text import page_of
from datavern.privacy.pages import pdf

if TYPE_CHECKING:
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.pages.blocks import Language

__all__ = ["document"]


def document(certificate: Certificate, language: Language = "nb") -> bytes:
    """The PDF, with ``certificate.json`` attached.

    Args:
        certificate: erased or shredded.
        language: "nb" or "en".

    Raises:
        ConfigurationError: ``datavern[pdf]`` is not installed, or no such language.
    """
    return pdf.document(page_of(certificate, language), {"certificate.json": certificate.to_json().encode()})
