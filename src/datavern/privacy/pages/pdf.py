"""Pages as PDF. Needs the extra ``datavern[pdf]``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.pages.blocks import Block, Facts, Heading, Listing, Mono, Page, Paragraph, Table

__all__ = ["document"]

_INK, _SOFT, _LINE, _SHADE, _MARK = (27, 35, 48), (75, 87, 104), (207, 214, 223), (243, 245, 248), (20, 69, 107)
_SIZE, _HEIGHT = 10, 5.2  # points, millimetres
_PAGE = {"nb": "Side {page} av {{nb}}", "en": "Page {page} of {{nb}}"}


def document(said: Page, attached: Mapping[str, bytes] | None = None) -> bytes:
    """The PDF: A4, with its language and title set, and text that can be copied.

    A letter that the font lacks is written as its code: [U+4E2D].

    Args:
        said: what stands on it.
        attached: file name → JSON that comes with it.

    Raises:
        ConfigurationError: ``datavern[pdf]`` is not installed.
    """
    try:
        fpdf: Any = importlib.import_module("fpdf")
        fonts: Any = files("fontpkg_fira_sans") / "files"
    except ImportError:
        raise ConfigurationError(
            "a PDF needs two more packages: pip install 'datavern[pdf]'; --html needs none, and prints"
        ) from None
    pages = _Document(fpdf, fonts, said)
    try:
        return pages.drawn(attached or {})
    finally:
        pages.close()


class _Document:
    """The pages, as they are drawn."""

    def __init__(self, fpdf: Any, fonts: Any, said: Page) -> None:
        self._said = said

        class Pages(fpdf.FPDF):  # type: ignore[misc]  # loaded at run time
            """Pages with a foot."""

            def footer(pages) -> None:  # noqa: N805
                pages.set_y(-14)
                pages.set_font("Fira", size=8)
                pages.set_text_color(*_SOFT)
                pages.cell(0, 5, self._shown(said.foot), align="L")
                pages.set_x(pages.l_margin)
                pages.cell(0, 5, _PAGE[said.language].format(page=pages.page_no()), align="R")

        self._pdf: Any = Pages(format="A4")
        self._face: Any = importlib.import_module("fpdf.fonts").FontFace
        pdf = self._pdf
        pdf.set_margins(20, 18, 20)
        pdf.set_auto_page_break(True, margin=20)
        pdf.add_font("Fira", "", str(fonts / "FiraSans-Regular.ttf"))
        pdf.add_font("Fira", "B", str(fonts / "FiraSans-SemiBold.ttf"))
        pdf.set_lang("nb-NO" if said.language == "nb" else "en-GB")
        pdf.set_title(said.title)
        pdf.set_author(said.organisation)
        pdf.set_creator("Datavern")
        self._known = set(pdf.fonts["fira"].cmap)

    def _shown(self, text: str) -> str:
        """The text, in letters that the font has."""
        known = self._known
        return "".join(c if ord(c) in known else " " if c in "\r\n\t" else f"[U+{ord(c):04X}]" for c in text)

    def close(self) -> None:
        """Close the fonts' files."""
        for font in self._pdf.fonts.values():
            font.ttfont.close()

    def drawn(self, attached: Mapping[str, bytes]) -> bytes:
        """The whole document."""
        pdf = self._pdf
        pdf.add_page()
        pdf.set_fill_color(*_MARK)
        pdf.rect(0, 0, 210, 3, style="F")
        self._font("B", 20, _MARK)
        pdf.start_section(self._said.title)
        self._write(self._said.title, 9)
        pdf.ln(2)
        for block in self._said.blocks:
            self._block(block)
        for name, content in attached.items():
            pdf.embed_file(bytes=content, basename=name, mime_type="application/json")
        return bytes(pdf.output())

    def _font(self, style: str = "", size: float = _SIZE, color: tuple[int, int, int] = _INK) -> None:
        self._pdf.set_font("Fira", style, size)
        self._pdf.set_text_color(*color)

    def _write(self, text: str, height: float = _HEIGHT, **more: Any) -> None:
        more = {"align": "L", "new_x": "LMARGIN", "new_y": "NEXT", **more}
        self._pdf.multi_cell(0, height, self._shown(text), **more)

    def _block(self, block: Block) -> None:
        pdf = self._pdf
        if isinstance(block, Heading):
            pdf.ln(4.5)
            if pdf.will_page_break(28):  # no heading alone at the foot of a page
                pdf.add_page()
            self._font("B", 12.5, _MARK)
            pdf.start_section(block.text, level=1)
            self._write(block.text, 6.5)
            pdf.ln(0.8)
        elif isinstance(block, Paragraph):
            self._font("", 11.5 if block.strong else _SIZE)
            self._write(block.text, 6 if block.strong else _HEIGHT)
            pdf.ln(2)
        elif isinstance(block, Mono):
            pdf.set_fill_color(*_SHADE)
            self._font("", 9)
            self._write(block.text, 7, fill=True)
            pdf.ln(2)
        elif isinstance(block, Listing):
            self._font()
            for text, _ in block.items:
                pdf.set_x(pdf.l_margin)
                pdf.cell(4.5, _HEIGHT, "•")
                pdf.multi_cell(0, _HEIGHT, self._shown(text), align="L", new_x="LMARGIN", new_y="NEXT")
                pdf.ln(0.7)
        elif isinstance(block, Facts):
            self._facts(block)
        else:
            self._table(block)

    def _facts(self, facts: Facts) -> None:
        plain = self._face(emphasis="", color=_SOFT)
        with self._grid((30, 70), headings=False) as table:
            for name, value in facts.rows:
                row = table.row()
                row.cell(self._shown(name), style=plain)
                row.cell(self._shown(value), style=self._face(emphasis="BOLD", color=_INK))
        self._pdf.ln(2)

    def _table(self, block: Table) -> None:
        pdf = self._pdf
        pdf.ln(0.5)
        self._font("", 9, _SOFT)
        self._write(block.caption, 4.8)
        self._font("", 9)
        with self._grid(block.widths, headings=True) as table:
            head = table.row()
            for header in block.headers:
                head.cell(self._shown(header))
            for cells in block.rows:
                row = table.row()
                for number, cell in enumerate(cells):
                    bold = number == 0 and number not in block.code
                    row.cell(self._shown(cell), style=self._face(emphasis="BOLD") if bold else None)
        pdf.ln(2)

    def _grid(self, widths: Any, *, headings: bool) -> Any:
        pdf = self._pdf
        self._font("", 9 if headings else _SIZE)
        pdf.set_draw_color(*_LINE)
        pdf.set_fill_color(255, 255, 255)
        return pdf.table(
            col_widths=tuple(widths),
            text_align="LEFT",
            line_height=_HEIGHT,
            padding=(1.1, 2, 1.1, 0 if not headings else 1.5),
            borders_layout="HORIZONTAL_LINES",
            v_align="TOP",
            headings_style=self._face(emphasis="BOLD", color=_INK, fill_color=_SHADE),
            first_row_as_headings=headings,
            repeat_headings=1 if headings else 0,
        )
