"""Reads the code blocks of a page and runs them, in order, as one program.

- ``python`` blocks run in one namespace, with ``await`` allowed at the top. ``expression  # -> 3`` must be 3 (its repr,
  with … for any text); ``statement  # raises Error: words`` must raise it, with the words in its message.
  A block whose first line is ``# name.py`` is not run: it is the next piece of that file.
- ``toml`` blocks are written to the file that their first line names.
- ``console`` blocks: each ``$ command`` is run by a shell; the lines below it must be in what it prints, in order, with
  … for any text. ``# exits 1`` after a command is the exit code that it must have.

A word after the language (```` ```python postgresql ````) keeps a block for that engine.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = re.compile(r"^(\s*)(\S.*?)\s+# -> (.+)$")
RAISES = re.compile(r"^(\s*)(\S.*?)\s+# raises (\w+)(?:: (.+))?$")
FENCE = re.compile(r"^```(\w+)(?: (\w+))?\s*$")


@dataclass(frozen=True)
class Block:
    language: str
    engine: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[str, str | None, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is None and (fence := FENCE.match(line)):
            opened, lines = (fence[1], fence[2], number + 1), []
        elif opened is not None and line.rstrip() == "```":
            found.append(Block(opened[0], opened[1], "\n".join(lines) + "\n", opened[2]))
            opened = None
        elif opened is not None:
            lines.append(line)
        else:
            assert not line.startswith("```"), f"{page.name}:{number}: a block without a language"
    assert opened is None, f"{page.name}: the last block does not end"
    return found


def like(expected: str, text: str) -> bool:
    """Whether `text` is `expected`, where … stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), text, re.DOTALL) is not None


def _compared(page: str, line: int, value: Any, expected: str) -> None:
    assert like(expected, repr(value)), f"{page}:{line}: the page says {expected}, and it is {value!r}"


class _Raises:
    def __init__(self, page: str, line: int, name: str, words: str) -> None:
        self.where, self.name, self.words = f"{page}:{line}", name, words

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        assert kind is not None, f"{self.where}: the page says that it raises {self.name}, and it does not"
        assert kind.__name__ == self.name, (
            f"{self.where}: the page says {self.name}, and it is {kind.__name__}: {error}"
        )
        assert like(f"…{self.words}…", str(error)), f"{self.where}: the page says {self.words!r}, and it is {error}"
        return True


class Story:
    """One run of a page."""

    def __init__(self, page: Path, folder: Path, replace: dict[str, str] | None = None) -> None:
        self.page, self.folder, self.replace = page, folder, replace or {}
        name = page.name
        self.names: dict[str, Any] = {
            "__name__": "usage",
            "_is": lambda line, value, expected: _compared(name, line, value, expected),
            "_raises": lambda line, kind, words: _Raises(name, line, kind, words),
        }

    def _real(self, text: str) -> str:
        for written, real in self.replace.items():
            text = text.replace(written, real)
        return text

    async def run(self, block: Block) -> None:
        runner = getattr(self, f"_{block.language}", None)
        assert runner is not None, f"{self.page.name}:{block.line}: a block that nobody runs: {block.language}"
        await runner(block)

    def _piece(self, name: str, text: str) -> None:
        file = self.folder / name
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        between = "" if not before else "\n" if text.startswith(" ") else "\n\n"
        file.write_text(before + between + text, encoding="utf-8")

    async def _python(self, block: Block) -> None:
        if piece := re.match(r"# (\w+\.py)\n", block.text):
            self._piece(piece[1], block.text[piece.end() :])
            return
        lines = []
        for number, line in enumerate(self._real(block.text).splitlines(), block.line):
            if found := RAISES.match(line):
                lines.append(f"{found[1]}with _raises({number}, {found[3]!r}, {found[4] or ''!r}): {found[2]}")
            elif found := RESULT.match(line):
                lines.append(f"{found[1]}_is({number}, ({found[2]}), {found[3]!r})")
            else:
                lines.append(line)
        source = "\n" * (block.line - 1) + "\n".join(lines)
        code = compile(source, str(self.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, self.names)
        if inspect.iscoroutine(result):
            await result

    async def _toml(self, block: Block) -> None:
        name = re.match(r"# (\S+\.toml)", block.text)
        assert name, f"{self.page.name}:{block.line}: the first line names the file: # datavern.toml"
        (self.folder / name[1]).write_text(self._real(block.text), encoding="utf-8")

    async def _console(self, block: Block) -> None:
        step: list[str] = []
        for line in [*self._real(block.text).splitlines(), "$"]:
            if line.startswith("$") and step:
                await self._shell(step, block)
                step = []
            step.append(line)

    async def _shell(self, step: list[str], block: Block) -> None:
        command, *expected = step
        command, _, exits = command.removeprefix("$ ").partition("# exits ")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                       "COLUMNS": "100", "NO_COLOR": "1"}  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, cwd=self.folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        where = f"{self.page.name}:{block.line}: $ {command}\n{said}"
        assert process.returncode == int(exits or 0), f"{where}\nexit code {process.returncode}"
        left = [" ".join(line.split()) for line in said.splitlines()]
        for line in filter(str.strip, expected):
            wanted = re.sub(r"\s*…\s*", "…", " ".join(line.split()))
            while left and not like(wanted, left[0]):
                left.pop(0)
            assert left, f"{where}\nit does not say, or not in this order: {wanted}"
            left.pop(0)
