"""Rows as files: what is written is what was read, one row a line, streaming."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path


def one_line(row: bytes) -> bytes:
    """A row as one line without its newline: untouched unless a line break stands inside.

    Rows of a .jsonl file cannot hold one; an element of a .json array can, but only between its tokens (a JSON string
    cannot hold one), where a space means the same. A trailing carriage return (CRLF files) stays.
    """
    row = row.removesuffix(b"\n")
    if b"\n" not in row and b"\r" not in row[:-1]:
        return row
    return row[:-1].replace(b"\n", b" ").replace(b"\r", b" ") + row[-1:].replace(b"\n", b" ")


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write ``lines``, each with a newline; their number. One line is in memory at a time."""
    count = 0
    with path.open("wb", buffering=1 << 20) as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")
            count += 1
    return count


def write_prefixes(paths: Mapping[int, Path], lines: Iterable[bytes]) -> dict[int, int]:
    """Write the first ``n`` lines to ``paths[n]`` for every budget n, reading ``lines`` once; the lines each one got.

    Fewer than n lines are no error here: filters that run dry select fewer, and the caller notes it.
    """
    written = dict.fromkeys(paths, 0)
    with ExitStack() as stack:
        files = {n: stack.enter_context(path.open("wb", buffering=1 << 20)) for n, path in paths.items()}
        longest = max(paths, default=0)
        if longest == 0:
            return written
        for at, line in enumerate(lines):
            for n, file in files.items():
                if at < n:
                    file.write(line)
                    file.write(b"\n")
                    written[n] += 1
            if at + 1 == longest:
                break
    return written


def selection_names(budgets: tuple[int, ...]) -> dict[int, str]:
    """The file of each budget: ``selection.jsonl`` for one, ``selection_{n}.jsonl`` for several."""
    if len(budgets) == 1:
        return {budgets[0]: "selection.jsonl"}
    return {n: f"selection_{n}.jsonl" for n in budgets}
