"""A web page that stands by itself: no script, no image, nothing fetched; read aloud, or printed."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from datavern.privacy.pages.blocks import Block, Facts, Heading, Listing, Mono, Page, Paragraph, Table

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light; --ink: #1b2330; --soft: #4b5768; --line: #cfd6df; --shade: #f3f5f8; --mark: #14456b; }
* { box-sizing: border-box; }
body { margin: 0; background: #e9edf2; color: var(--ink); font: 1.0625rem/1.55 "Source Sans 3", "Segoe UI", system-ui,
  -apple-system, Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 52rem; margin: 2rem auto; padding: 3rem 3.5rem 3.5rem; background: #fff;
  border-top: .4rem solid var(--mark); border-radius: .2rem; box-shadow: 0 .1rem .6rem rgba(20, 40, 70, .12); }
h1 { margin: 0 0 .5rem; font-size: 2.1rem; line-height: 1.2; letter-spacing: -.01em; color: var(--mark); }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.25rem; line-height: 1.3; color: var(--mark); }
p { margin: .5rem 0; max-width: 42rem; }
.lead { font-size: 1.2rem; margin-bottom: 1.6rem; }
dl { display: grid; grid-template-columns: minmax(10rem, 14rem) 1fr; margin: 1rem 0;
  border-top: 1px solid var(--line); }
dt, dd { margin: 0; padding: .45rem .6rem .45rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
dt { color: var(--soft); }
dd { font-weight: 600; }
table { width: 100%; margin: .8rem 0 1.2rem; border-collapse: collapse; font-size: 1rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { padding: .5rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: break-word; }
thead th { background: var(--shade); border-bottom: 2px solid var(--mark); }
tbody th { font-weight: 600; }
code, pre { font: .9rem/1.5 ui-monospace, "Cascadia Mono", Consolas, "DejaVu Sans Mono", monospace; }
td { overflow-wrap: anywhere; }
td code, th code { overflow-wrap: anywhere; font-weight: 400; }
pre { margin: .8rem 0; padding: .8rem 1rem; background: var(--shade); border-left: .25rem solid var(--mark);
  white-space: pre-wrap; overflow-wrap: anywhere; }
ul { margin: .5rem 0; padding-left: 1.2rem; max-width: 42rem; }
li { margin: .35rem 0; }
details { margin-top: 1.6rem; color: var(--soft); }
summary { cursor: pointer; }
summary:focus-visible { outline: .2rem solid var(--mark); outline-offset: .2rem; }
@media (max-width: 40rem) { main { margin: 0; padding: 1.5rem 1.1rem; border-radius: 0; }
  dl { grid-template-columns: 1fr; } dt { border: 0; padding-bottom: 0; } dd { padding-top: 0; }
  h1 { font-size: 1.6rem; } table { font-size: .875rem; } th, td { padding: .4rem .4rem .4rem 0; } }
@media print { @page { size: A4; margin: 18mm 18mm 20mm; }
  body { background: #fff; font-size: 10.5pt; } main { max-width: none; margin: 0; padding: 0; border: 0;
  box-shadow: none; } h1 { font-size: 20pt; } h2 { font-size: 13pt; break-after: avoid; }
  .lead { font-size: 12pt; } table { font-size: 9.5pt; } thead { display: table-header-group; }
  table, tr, li, p, dl > * { break-inside: avoid; }
  caption { break-after: avoid; } thead th { background: none; } details { display: none; } }
""".strip()


def page(said: Page, more: str = "") -> str:
    """The page, as HTML in UTF-8.

    Args:
        said: what stands on it.
        more: HTML that follows that.
    """
    parts = "\n".join(part for block in said.blocks for part in _drawn(block))
    head = f"{said.title} – {said.organisation}" if said.organisation else said.title
    return f"""<!doctype html>
<html lang="{said.language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(head)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<h1>{escape(said.title)}</h1>
{parts}
{more}</main>
</body>
</html>
"""


def _drawn(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"<h2>{escape(block.text)}</h2>"
    elif isinstance(block, Paragraph):
        yield f'<p class="lead">{escape(block.text)}</p>' if block.strong else f"<p>{escape(block.text)}</p>"
    elif isinstance(block, Mono):
        yield f'<pre lang="en">{escape(block.text)}</pre>'
    elif isinstance(block, Facts):
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in block.rows)
        yield f"<dl>\n{rows}</dl>"
    elif isinstance(block, Listing):
        items = "".join(f'<li lang="{language}">{escape(text)}</li>\n' for text, language in block.items)
        yield f"<ul>\n{items}</ul>"
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    yield f"<table>\n<caption>{escape(table.caption)}</caption>"
    columns = "".join(f'<col style="width:{width}%">' for width in table.widths)
    headers = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    yield f"<colgroup>{columns}</colgroup>\n<thead><tr>{headers}</tr></thead>\n<tbody>"
    for row in table.rows:
        cells = [f"<code>{escape(c)}</code>" if n in table.code else escape(c) for n, c in enumerate(row)]
        first, *rest = cells
        yield f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
    yield "</tbody>\n</table>"
