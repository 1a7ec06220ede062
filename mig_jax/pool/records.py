"""From blocks of bytes to records: the lines of a .jsonl, the elements of a top-level .json array."""

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
# Everything up to the next bracket (inside an element) or the next bracket or comma (between elements), strings whole.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb")*+", re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|' + STRING + rb")*+", re.DOTALL)
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)


class Block(NamedTuple):
    """Some records in a row, none of them blank.

    Args:
      records: each record's bytes, without its line end.
      lines: 1-based line (or record) number of each.
      offsets: where each starts in the decompressed stream (or its 0-based record number).
      bad: reason for the records already known to be malformed, by index into ``records``.
      objects: the decoded records where the format has them at hand (parquet, hf), else None.
    """

    records: list[bytes]
    lines: Sequence[int]
    offsets: Sequence[int]
    bad: dict[int, str]
    objects: list[Any] | None = None


def line_blocks(blocks: Iterable[bytes], line: int = 0, offset: int = 0) -> Iterator[Block]:
    """The non-blank lines of a stream; CRLF, a UTF-8 BOM and a last line without its end are accepted.

    ``line``, ``offset``: how many lines and bytes lie before it, where it is a later part of a file.
    """
    for text in whole_lines(blocks):
        if not offset and text.startswith(BOM):
            text, offset = text[len(BOM) :], len(BOM)
        pieces = text.split(b"\n")
        if not pieces[-1]:
            pieces.pop()  # behind the last line's end; a BOM may have been all there was
        starts = list(accumulate(map(len, pieces), lambda at, length: at + length + 1, initial=offset))
        lines = range(line + 1, line + 1 + len(pieces))
        line, offset = line + len(pieces), starts.pop()
        if all(pieces) and not any(map(bytes.isspace, pieces)):
            kept = pieces, lines, starts
        else:
            kept = zip(*(each for each in zip(pieces, lines, starts, strict=True) if each[0].strip()), strict=True)
            kept = tuple(map(list, kept)) or ([], [], [])
        records, numbers, offsets = kept
        if b"\r" in text:
            records = [record.removesuffix(b"\r") for record in records]
        if records:
            yield Block(records, numbers, offsets, {} if _is_utf8(text) else _not_utf8(records))


def whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Runs of whole lines with their ends, which only the stream's last line may lack."""
    carry: list[bytes] = []
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if not cut:
            carry.append(block)
            continue
        yield b"".join((*carry, block[:cut]))
        carry = [block[cut:]]
    if rest := b"".join(carry):
        yield rest


def _is_utf8(text: bytes) -> bool:
    # msgspec does not look at the encoding of what it skips, so the whole block is checked here, once.
    if text.isascii():
        return True
    # Arrow's check makes no string of it: fifteen times as fast as bytes.decode.
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
    """Whether the first thing in the stream is ``[``, and the stream again from its start."""
    seen: list[bytes] = []
    for block in blocks:
        seen.append(block)
        if head := b"".join(seen).removeprefix(BOM).lstrip(BLANK)[:4]:
            # A BOM cut by the block's end is not the first thing yet.
            if BOM.startswith(head):
                continue
            return head.startswith(b"["), chain(seen, blocks)
    return False, iter(seen)


def flatten(record: bytes) -> bytes:
    """A record of an array on one line: between JSON's tokens a line break and a space are the same."""
    return record.replace(b"\n", b" ").replace(b"\r", b" ")


def array_blocks(blocks: Iterable[bytes], path: str) -> Iterator[Block]:
    """The elements of one top-level array, each flattened onto one line; their numbers count from 1.

    Raises:
      UserError: the array is not closed, or something follows it.
    """
    number = 0
    for elements in _elements(blocks, path):
        records, offsets, bad = [], [], {}
        for offset, element in elements:
            if b"\n" in element or b"\r" in element:
                # A raw line break inside a string is an error that flattening would hide.
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
    """(offset, bytes) of the elements that end in each block. Depth 0 is outside the array, 1 between its elements."""
    buffer, base, position, start, depth, done, count = b"", 0, 0, 0, 0, False, 0
    for block in blocks:
        buffer += block
        found: list[tuple[int, bytes]] = []
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
            # At a quote: the string is not closed yet. Either way the next block goes on from here.
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
                found.append(_stripped(buffer, start, position - 1, base))
                start = position
                done = depth == 0
        if done and (buffer[position:].strip(BLANK) or buffer[position - 1 : position] == b"}"):
            raise UserError(f"{path}: something follows the end of the JSON array (byte {base + position})")
        count += len(found)
        # `[]` and `[ ]` have no element; in `[a,]` the empty one is malformed.
        yield [] if count == 1 and found and not found[0][1] and done else found
        cut = position if done else start
        buffer, base, position, start = buffer[cut:], base + cut, position - cut, 0
    if not done:
        raise UserError(f"{path}: the JSON array is not closed; the file is cut short")


def _stripped(buffer: bytes, start: int, end: int, base: int) -> tuple[int, bytes]:
    element = buffer[start:end]
    left = element.lstrip(BLANK)
    return base + start + len(element) - len(left), left.rstrip(BLANK)
