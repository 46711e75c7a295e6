"""docs/azuresql.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

import ast
from pathlib import Path

from docblocks import Story, blocks

from datavern.testing.azuresql import AzureSQLServer

PAGE = Path(__file__).parents[3] / "docs" / "azuresql.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch):
    with AzureSQLServer() as server:
        monkeypatch.setenv("DB_PASSWORD", server.password)
        tls = f"TLS(ca_file={server.certificates.ca_file!r})"
        here = f'host="localhost", port={server.port}, driver="python-tds", tls={tls}'
        story = Story(
            PAGE,
            tmp_path,
            {
                "from datavern import AzureSQLProvider, env": "from datavern import TLS, AzureSQLProvider, env",
                'host="kommune.database.windows.net"': here,
                'database="cases"': 'database="pysqlbridge"',
            },
        )
        for block in blocks(PAGE):
            if block.engine == "azuresql":  # needs a database that can be written to
                compile(block.text, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            else:
                await story.run(block)
        await story.names["cases"].close()
