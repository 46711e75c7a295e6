"""The figures: ours and the named peers, interleaved in one run, as ratios.

One module per figure group, each with ``async def figures() -> list[Figure]``. ``python -m benchmarks`` runs them all
and writes RESULTS.md; ``python -m benchmarks postgresql_select`` runs one and prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Figure", "Run", "Tally", "apart", "fan", "interleave"]

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""Those that the process may run on, as it began: once it is pinned it is told of that one only."""

Run = Callable[[int], Awaitable[object]]
"""Does a number of operations."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        title: what was done.
        ours: the variant that is ours.
        times: seconds per operation of each variant, one for each round; the rounds are interleaved.
        at_most: peer → the highest ratio ours/peer that we promise.
        at_least: peer → how many times as fast as the peer we promise to be.
        shown: peers measured beside, with no promise.
        note: what to know when reading it.
    """

    title: str
    ours: str
    times: Mapping[str, list[float]]
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def median(self, name: str) -> float:
        """Median seconds per operation."""
        return statistics.median(self.times[name])

    def ratio(self, peer: str) -> float:
        """Median over the rounds of ours/peer, each round paired with its own."""
        pairs = zip(self.times[self.ours], self.times[peer], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def spread(self, peer: str) -> tuple[float, float]:
        """Quartiles of the same ratios."""
        pairs = [a / b for a, b in zip(self.times[self.ours], self.times[peer], strict=True)]
        low, _, high = statistics.quantiles(pairs, n=4)
        return low, high

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Peer, ours and theirs in µs, ratio, promise and whether it held."""
        rows = []
        for peer in self.times:
            if peer == self.ours:
                continue
            ratio, (low, high) = self.ratio(peer), self.spread(peer)
            promise = ""
            if peer in self.at_most:
                held = ratio <= self.at_most[peer]
                promise = f"≤ {self.at_most[peer]:g} × {'held' if held else 'MISSED'}"
            elif peer in self.at_least:
                held = 1 / ratio >= self.at_least[peer]
                promise = f"≥ {self.at_least[peer]:g} × as fast {'held' if held else 'MISSED'}"
            shown = f"{ratio:.2f} ({low:.2f}–{high:.2f})"
            if peer in self.at_least:
                shown += f" = {1 / ratio:.1f} × as fast"
            ours, theirs = self.median(self.ours) * 1e6, self.median(peer) * 1e6
            rows.append((peer, f"{ours:,.1f}", f"{theirs:,.1f}", shown, promise))
        return rows

    @property
    def held(self) -> bool:
        """Whether every promise held."""
        return not any("MISSED" in row[-1] for row in self.rows())


@dataclass(frozen=True)
class Tally:
    """What happened to each, in numbers that are no ratio: failures, seconds until it went on.

    Attributes:
        title: what was done to them.
        ours: the variant that is ours.
        columns: what was counted.
        counts: who → a number for each column; infinite: never, within the run.
        at_most: column → the highest number of ours that we promise.
        note: what to know when reading it.
    """

    title: str
    ours: str
    columns: tuple[str, ...]
    counts: Mapping[str, tuple[float, ...]]
    at_most: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def missed(self, column: str) -> bool:
        """Whether ours is above what was promised."""
        return self.counts[self.ours][self.columns.index(column)] > self.at_most.get(column, float("inf"))

    @property
    def held(self) -> bool:
        """Whether every promise held."""
        return not any(self.missed(column) for column in self.columns)

    def lines(self) -> list[str]:
        """A table in Markdown, its promises in the last row."""
        lines = [f"| | {' | '.join(self.columns)} |", "|---" * (len(self.columns) + 1) + "|"]
        lines += [f"| {who} | {' | '.join(map(_said, numbers))} |" for who, numbers in self.counts.items()]
        if self.at_most:
            promises = [
                f"≤ {self.at_most[c]:g} {'MISSED' if self.missed(c) else 'held'}" if c in self.at_most else ""
                for c in self.columns
            ]
            lines.append(f"| promise | {' | '.join(promises)} |")
        return lines


def _said(number: float) -> str:
    if number == float("inf"):
        return "never"
    return f"{number:,.0f}" if number == int(number) else f"{number:,.3f}"


async def interleave(variants: Mapping[str, Run], n: int, *, rounds: int = 15) -> dict[str, list[float]]:
    """Seconds per operation of each variant for each round.

    The variants of a round run one after the other, in an order that turns by one each round, so that a machine whose
    speed drifts treats them alike.
    """
    names = list(variants)
    for name in names:
        await variants[name](max(1, n // 5))
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            await variants[name](n)
            times[name].append((time.perf_counter() - started) / n)
    gc.unfreeze()
    return times


def fan(one: Callable[[int], Awaitable[object]], tasks: int) -> Run:
    """A run of single operations, spread over so many tasks; each operation gets a number of its own."""

    async def run(n: int) -> None:
        each = max(1, n // tasks)

        async def work(k: int) -> None:
            for i in range(k * each, (k + 1) * each):
                await one(i)

        if tasks == 1:
            await work(0)
        else:
            await asyncio.gather(*(work(k) for k in range(tasks)))

    return run


@contextlib.contextmanager
def apart(*servers: int | None) -> Iterator[None]:
    """Keep this process, its threads among them, on one core and the servers, by process id, on another.

    For concurrency 1, where ratios flip with placement; with many tasks everything runs where the system puts it.
    Linux only; elsewhere, and with one core, nothing happens.
    """
    there = [server for server in servers if server is not None]
    if len(_CORES) < 2:
        yield
        return
    _place(0, {_CORES[0]})
    for server in there:
        _place(server, {_CORES[1]})
    try:
        yield
    finally:
        for process in (0, *there):
            _place(process, set(_CORES))


def _place(process: int, cores: set[int]) -> None:
    """0 is this process, whose children are looked after by name; a server's children go with it."""
    for pid in (process, *(_children(process) if process else ())):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for task in os.listdir(f"/proc/{pid or os.getpid()}/task"):  # noqa: PTH208  (names are what is needed)
                os.sched_setaffinity(int(task), cores)


def _children(process: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  (names are what is needed)
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:  # noqa: PTH123  (a pseudo file)
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == process:
                found.append(int(entry))
    return found
