"""Split blocks of bytes into records: the lines of a .jsonl file, the elements of a top-level .json array."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from mig_jax.core.errors import UserError

BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
STRING = rb'"(?:[^"\\]++|\\.)*+"'
# Everything up to the next bracket (inside an element), or to the next bracket or comma (between elements). Strings are
# skipped as a whole.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb")*+", re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|' + STRING + rb")*+", re.DOTALL)
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)


class Block(NamedTuple):
    """Consecutive records, none of them blank.

    Args:
      records: each record's bytes, without its line end.
      lines: the 1-based line (or record) number of each.
      offsets: the start of each in the decompressed stream (or its 0-based record number).
      bad: index into ``records`` -> the reason, for records that are already known to be malformed.
      objects: the decoded records, if the format has them (parquet, hf); else None.
    """

    records: list[bytes]
    lines: Sequence[int]
    offsets: Sequence[int]
    bad: dict[int, str]
    objects: list[Any] | None = None


def line_blocks(blocks: Iterable[bytes], line: int = 0, offset: int = 0) -> Iterator[Block]:
    """The non-blank lines of a stream; CRLF, a UTF-8 BOM and a last line without its end are accepted.

    ``line``, ``offset``: the number of lines and bytes before the stream, if it is a later part of a file.
    """
    for text in whole_lines(blocks):
        if not offset and text.startswith(BOM):
            text, offset = text[len(BOM) :], len(BOM)
        pieces = text.split(b"\n")
        if not pieces[-1]:
            pieces.pop()  # after the last line's end; the file may have been only a BOM
        starts = list(accumulate(map(len, pieces), lambda start, length: start + length + 1, initial=offset))
        lines = range(line + 1, line + 1 + len(pieces))
        line, offset = line + len(pieces), starts.pop()
        if all(pieces) and not any(map(bytes.isspace, pieces)):
            records, numbers, offsets = pieces, lines, starts
        else:
            rows = [row for row in zip(pieces, lines, starts, strict=True) if row[0].strip()]
            records, numbers, offsets = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
        if b"\r" in text:
            records = [record.removesuffix(b"\r") for record in records]
        if records:
            yield Block(records, numbers, offsets, {} if _is_utf8(text) else _not_utf8(records))


def whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Split the stream into ranges of whole lines with their ends; only the last line may lack its end."""
    partial: list[bytes] = []
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if not cut:
            partial.append(block)
            continue
        yield b"".join((*partial, block[:cut]))
        partial = [block[cut:]]
    if rest := b"".join(partial):
        yield rest


def _is_utf8(text: bytes) -> bool:
    # msgspec does not check the encoding of skipped values, so the whole block is checked here, once.
    if text.isascii():
        return True
    # Arrow's check builds no string: it is fifteen times as fast as bytes.decode.
    ends = pa.py_buffer(np.array([0, len(text)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(text)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _not_utf8(records: list[bytes]) -> dict[int, str]:
    bad = {}
    for i, record in enumerate(records):
        try:
            record.decode()
        except UnicodeDecodeError as error:
            bad[i] = f"not UTF-8 (byte {error.start})"
    return bad


def starts_array(blocks: Iterator[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether the first character of the stream that is not blank is ``[``; and the stream from its start."""
    seen: list[bytes] = []
    for block in blocks:
        seen.append(block)
        if head := b"".join(seen).removeprefix(BOM).lstrip(BLANK)[:4]:
            # A BOM that the block's end cuts is not a first character.
            if BOM.startswith(head):
                continue
            return head.startswith(b"["), chain(seen, blocks)
    return False, iter(seen)


def flatten(record: bytes) -> bytes:
    """Write a record of an array on one line: between tokens of JSON, a line break and a space are equivalent."""
    return record.replace(b"\n", b" ").replace(b"\r", b" ")


def array_blocks(blocks: Iterable[bytes], path: str) -> Iterator[Block]:
    """The elements of one top-level array, each flattened onto one line; they are numbered from 1.

    Raises:
      UserError: the array is not closed, or the file continues after it.
    """
    number = 0
    for elements in _elements(blocks, path):
        records, offsets, bad = [], [], {}
        for offset, element in elements:
            if b"\n" in element or b"\r" in element:
                # A raw line break in a string is an error that ``flatten`` would hide.
                try:
                    _SYNTAX.decode(element)
                except (msgspec.DecodeError, RecursionError) as error:
                    bad[len(records)] = str(error)
                element = flatten(element)
            records.append(element)
            offsets.append(offset)
        bad = bad if all(map(_is_utf8, records)) else bad | _not_utf8(records)
        lines = list(range(number + 1, number + len(records) + 1))
        number += len(records)
        if records:
            yield Block(records, lines, offsets, bad)


def _elements(blocks: Iterable[bytes], path: str) -> Iterator[list[tuple[int, bytes]]]:
    """(offset, bytes) of the elements that end in each block. Depth 0: outside the array; 1: between its elements."""
    buffer, base, position, start, depth, done, count = b"", 0, 0, 0, 0, False, 0
    for block in blocks:
        buffer += block
        elements: list[tuple[int, bytes]] = []
        if depth == 0 and not done:
            opened = buffer.find(b"[")
            if opened < 0:
                continue
            position = start = opened + 1
            depth = 1
        while not done:
            match = (_BETWEEN if depth == 1 else _INSIDE).match(buffer, position)
            assert match is not None
            position = match.end()
            # The block ends, or a string is not closed in it: the next block continues here.
            if position == len(buffer) or buffer[position] == 0x22:
                break
            char = buffer[position]
            position += 1
            if char in b"[{":
                depth += 1
                continue
            if char in b"]}":
                depth -= 1
            if depth == 1 and char != 0x2C:
                continue
            if depth <= 1:
                elements.append(_stripped(buffer, start, position - 1, base))
                start = position
                done = depth == 0
        if done and (buffer[position:].strip(BLANK) or buffer[position - 1 : position] == b"}"):
            raise UserError(f"there is more after the end of the JSON array (byte {base + position})", where=path)
        count += len(elements)
        # `[]` and `[ ]` have no elements; in `[a,]` the empty element is malformed.
        yield [] if count == 1 and elements and not elements[0][1] and done else elements
        cut = position if done else start
        buffer, base, position, start = buffer[cut:], base + cut, position - cut, 0
    if not done:
        raise UserError("the JSON array is not closed; the file is cut short", where=path)


def _stripped(buffer: bytes, start: int, end: int, base: int) -> tuple[int, bytes]:
    element = buffer[start:end]
    left = element.lstrip(BLANK)
    return base + start + len(element) - len(left), left.rstrip(BLANK)
