"""What an InsTagger answers -> tags.

It is asked for a JSON list of {"tag": str, "explanation": str}. Half a thousand new tokens later this is often cut off,
or no JSON at all: quotes inside an explanation, a missing comma, the words of a chat around it. Most of this does not
touch the tags, for which alone the answer is read. So the text is read as JSON first; and where it is none, by its
``"tag"`` keys: an explanation need not be understood to find the next key.

A tag is taken only where one reading is possible. A key must follow what can end an object or a value, its string must
end at its first quote, and what comes after must go on as an object does; otherwise some text that was quoted
unescaped holds the key, or a tag has swallowed what followed it, and the whole answer is "malformed". In a prefix of
valid JSON every unescaped ``"tag":`` is a key and every string ends at its first unescaped quote, so that an answer
which was cut off gives the first of its tags and never another.

Libraries that repair JSON, such as json_repair, always return something: they close a tag's string where they guess
its end, and turn what they cannot read into text or drop it. A guessed tag would count like a true one in all that
follows, hence a reader of our own. An answer is data: nothing of it is evaluated, and the time is linear in its length.
"""

import json
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

LONGEST = 100  # characters of a tag; a longer one has swallowed what followed it
WRITTEN = 1300  # characters that LONGEST of them take at most, each written as two \uXXXX
UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029{}\ud800-\udfff]")  # half a surrogate pair cannot be written
QUOTES = {'"': '"', "'": "'", "“": "“”„‟", "‘": "‘’‚‛"}  # the kinds of quotes, each with all that open and close it
KIND = {quote: kind for kind, quotes in QUOTES.items() for quote in quotes}
APOSTROPHES = "'‘"  # kinds that are also used within words
BETWEEN = " \t\r\n,;{[`*•#-"  # what may be between two objects, beside the numbers of a list
NUMBERED = re.compile(r"\n[ \t]*\d{1,3}[.)]\Z")
VALUE_END = re.compile(r"[}\]\d]\Z|\b(?:true|false|null)\Z")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\", "/": "/"}


class Answer(NamedTuple):
    """What was read.

    Args:
      tags: in the answer's order, without surrounding space, empty ones and repeats.
      how: "json": as it was asked for; "repaired": not quite, but with one reading; "malformed": no tags.
      why: what was repaired, or why it is not usable; "" for "json".
    """

    tags: tuple[str, ...]
    how: Literal["json", "repaired", "malformed"]
    why: str


class _Malformed(Exception):
    """Why an answer is not usable; never leaves this module."""


class _Object(list):
    """A JSON object as its (key, value) pairs: a repeated key is two tags, not one."""


def read_answer(text: str) -> Answer:
    """The tags of an answer; never raises.

    "json" are a list of objects with a "tag" (other keys do not matter), one such object, a list of strings, and any of
    the lists as the "tags" of an object. An empty list is an answer without tags.
    """
    text = text.strip().removeprefix("\ufeff")
    try:
        if not text:
            raise _Malformed("the answer is empty")
        try:
            data = json.loads(text, object_pairs_hook=_Object)
        except (ValueError, RecursionError):
            found, why = _read_broken(text)
        else:
            found, why = _read_json(data)
        tags = _clean(found)
        if why and found and not tags:
            raise _Malformed("empty tags only")
        return Answer(tags, "repaired" if why else "json", why)
    except _Malformed as error:
        return Answer((), "malformed", str(error))


def _clean(tags: Iterable[str]) -> tuple[str, ...]:
    clean = [tag.strip() for tag in tags]
    for tag in clean:
        if len(tag) > LONGEST:
            raise _Malformed(f"a tag of {len(tag)} characters")
        if UNUSABLE.search(tag):
            raise _Malformed(f"a tag with a line break or brace in it: {tag!r}")
    return tuple(dict.fromkeys(tag for tag in clean if tag))


# Valid JSON


def _read_json(data: object) -> tuple[list[str], str]:
    """(tags, what was repaired) of what a JSON text holds."""
    notes: list[str] = []
    strings = True
    if isinstance(data, _Object):
        lists = [(key, value) for key, value in data if type(value) is list]
        if len(lists) == 1 and not any(_is(key, "tag") for key, _ in data):
            (key, data), *_ = lists
            strings = _is(key, "tags")
            notes += [f"a list under {key!r}"] if key != "tags" else []
        else:
            data = [data]
    if not isinstance(data, list):
        raise _Malformed("no list and no object")
    if data and all(type(item) is list for item in data):
        data = [item for inner in data for item in inner]
        notes.append("lists in a list")
    tags = [item for item in data if isinstance(item, str)]
    objects = [item for item in data if isinstance(item, _Object)]
    if len(tags) == len(data) and strings:
        return tags, _listed(notes)
    if len(objects) < len(data):
        raise _Malformed("a list of other things than objects")
    for item in objects:
        found = [(key, value) for key, value in item if _is(key, "tag")]
        if not all(isinstance(value, str) for _, value in found):
            raise _Malformed("a tag that is no string")
        if not found:
            notes.append("an object without a tag")
        if len(found) > 1:
            notes.append("two tags in one object")
        notes += [f"a key {key!r}" for key, _ in found if key != "tag"][:1]
        tags += [value for _, value in found]
    if not tags:
        raise _Malformed("no tag key")
    return tags, _listed(notes)


def _is(key: str, name: str) -> bool:
    return key.strip().lower() == name


def _listed(notes: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(notes))


# What is no valid JSON


class _Reader(NamedTuple):
    """The patterns of a text whose keys are in quotes of one kind.

    Args:
      values: the quotes that values may be in, too: Python writes a string with an apostrophe in double ones.
      key: any key; tag: a "tag" key, with its name as group 1.
      after: what can follow a tag's closing quote.
      under: the text up to what is a key's value; opened: the text up to the start of a string.
    """

    values: str
    key: re.Pattern[str]
    tag: re.Pattern[str]
    after: re.Pattern[str]
    under: re.Pattern[str]
    opened: re.Pattern[str]


def _reader(kind: str) -> _Reader:
    q = f"[{QUOTES[kind]}]"
    name = rf"(?:[^{QUOTES[kind]}\n\\]|\\.){{1,60}}"
    values = QUOTES[kind] + ('"' if kind == "'" else "")
    key = rf"{q}{name}{q}\s*+:"
    cut = rf"{q}[^{QUOTES[kind]}]*+(?:{q}\s*+)?+\Z"  # a key that the end of the text cuts
    brace = rf"[}}\]][ \t\r]*+(?:\n|\s*+(?:\Z|[\]}}{{`]|[{values}]|,\s*+(?:\Z|[\]}}{{]|[{values}])))"
    return _Reader(
        values=values,
        key=re.compile(rf"(?:\A|[{{\[,])\s*+({q}{name}{q})\s*+:"),
        tag=re.compile(rf"{q}(\s*+[tT][aA][gG]\s*+){q}\s*+:\s*+"),
        after=re.compile(rf"\s*+(?:\Z|{brace}|,\s*+(?:\Z|[{{}}\]]|{key}|{cut})|{key}|{{\s*+{q})"),
        under=re.compile(rf"{q}\s*+:\Z"),
        opened=re.compile(rf"[{{,]\s*+{key}\s*+[{values}]\Z"),
    )


READERS = {kind: _reader(kind) for kind in QUOTES}
ANY = "".join(KIND)
FENCE = re.compile(r"`+\w*\s*+\Z")
LIST = re.compile(rf"\[\s*+(?=[{ANY}\]])")
AFTER_STRING = re.compile(rf"\s*+(?:\Z|,\s*+(?:\Z|[{ANY}\]])|[{ANY}\]])")
AFTER_LIST = re.compile(r"[ \t]*+(?:\n|\Z|[}`])")
AROUND = re.compile(r"\A(?:.*[\n:`])?+[ \t]*+\Z", re.DOTALL)


def _read_broken(text: str) -> tuple[list[str], str]:
    """(tags, what was repaired) of a text that is no JSON.

    The first key, of whatever name, or the first list of strings shows what it is: keys in other quotes, or lists that
    come later, may be part of an explanation.
    """
    firsts = [(match.start(), kind, match) for kind in QUOTES if (match := READERS[kind].key.search(text))]
    start, kind, first = min(firsts, default=(len(text), "", None), key=lambda match: match[0])
    strings = LIST.search(text)
    if first is not None and not (strings and strings.start() < start):
        tags = _by_keys(text, first.start(1), kind)
        if tags is not None:
            return tags
        if not _is(first[1][1:-1], "tags") or not strings or text[first.end() : strings.start()].strip():
            raise _Malformed("no tag key")
        return _by_strings(text, strings, start)
    if strings is None:
        raise _Malformed("no tag key")
    return _by_strings(text, strings, strings.start())


def _by_keys(text: str, start: int, kind: str) -> tuple[list[str], str] | None:
    """Objects, or what is left of them, from ``start`` on; None: there is no tag key."""
    reader, tags, end = READERS[kind], [], start
    notes = _beginning(text[:start].rstrip(" \t\r\n,{["))
    if kind != '"':
        notes.append(f"keys in quotes {kind}")
    match = reader.tag.search(text, start)
    if match is None:
        return None
    first = match.start() == start
    while match is not None:
        if not first and not _may_follow(text[max(end - 1, 0) : match.start()], reader, tags, notes):
            raise _Malformed("a tag key after other text: quoted in an explanation, or of a second answer")
        if match[1] != "tag":
            notes.append(f"a key {match[1]!r}")
        value = match.end()
        close = _close(text, value, reader.values)
        if close is None:
            if not tags and text.startswith("str", value):  # the form it was asked for, repeated before the answer
                notes.append("the form of the prompt repeated")
                end = value  # once read is enough: else a text of nothing but these takes the square of its length
                match = reader.tag.search(text, value)
                continue
            if reader.tag.search(text, value):
                raise _Malformed("a tag without an end")
            notes.append("cut off")
            break
        if not reader.after.match(text, close + 1):
            raise _Malformed("a tag that ends in the middle of text: a quote in it")
        tags.append(_decoded(text[value + 1 : close]))
        end, first = close + 1, False
        match = reader.tag.search(text, end)
    if not tags:
        raise _Malformed("cut off before the first tag ended" if "cut off" in notes else "no tag key")
    if "cut off" not in notes:
        notes += _ending(text, end)
    return tags, _listed(notes) or "broken inside an explanation"


def _beginning(before: str) -> list[str]:
    """What is before the list, if anything."""
    if not before.strip():
        return []
    return ["a code fence" if FENCE.match(before) else "text before it"]


def _ending(text: str, end: int) -> list[str]:
    """What is wrong after the last tag's closing quote, as far as it shows."""
    last, opened = (max(map(text.rfind, brackets)) for brackets in ("]}", "[{"))
    if last < max(end, opened):
        return ["cut off"]
    if text[last + 1 :].strip(" \t\r\n,`"):
        return ["text after it"]
    return [] if "]" in text[end:] or "[" not in text[:end] else ["cut off"]


def _may_follow(window: str, reader: _Reader, tags: list[str], notes: list[str]) -> bool:
    """Whether an object or a pair can begin after ``window``, which begins where the tag before ended, or the text."""
    before = window.rstrip(BETWEEN)
    if NUMBERED.search(before[-12:]):
        before = before[: before.rfind("\n") + 1].rstrip(BETWEEN)
    if not tags and reader.under.search(before[-WRITTEN:]):
        return True
    if tags and "," not in window[len(before) :]:
        notes.append("a comma or bracket missing")
    if reader.opened.search(before[-WRITTEN:]):
        return False
    return before.endswith(tuple(reader.values)) or VALUE_END.search(before) is not None


def _close(text: str, start: int, quotes: str) -> int | None:
    """Where the string that begins at ``start`` ends; None: where the text does.

    Raises:
      _Malformed: no string begins there, or it is too long.
    """
    if start == len(text) or text.startswith("str", start):
        return None
    if text[start] not in quotes:
        raise _Malformed("a tag that is no string")
    kind = KIND[text[start]]
    at = start + 1
    limit = min(len(text), start + WRITTEN)
    while at < limit:
        if text[at] == "\\":
            at += 2
            continue
        if text[at] in QUOTES[kind] and not (kind in APOSTROPHES and _in_word(text, at)):
            return at
        at += 1
    if limit < len(text):
        raise _Malformed(f"a tag of more than {LONGEST} characters")
    return None


def _in_word(text: str, at: int) -> bool:
    return text[at - 1].isalnum() and text[at + 1 : at + 2].isalnum()


def _decoded(written: str) -> str:
    """A string's text; JSON's escapes and Python's, and any other as it is."""

    def meant(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else ESCAPED.get(match[3], match[0])

    text = ESCAPE.sub(meant, written)
    # Two \uXXXX may be the halves of one character; a half alone stays, and is not usable.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _by_strings(text: str, match: re.Match[str], start: int) -> tuple[list[str], str]:
    """A list of strings, on lines of its own or after a colon."""
    if not AROUND.match(text[:start]):
        raise _Malformed("a list of strings within other text")
    tags, notes, at = [], _beginning(text[:start]), match.end()
    while at < len(text) and text[at] != "]":
        kind = KIND.get(text[at])
        close = None if kind is None else _close(text, at, QUOTES[kind])
        if close is None:
            break
        after = AFTER_STRING.match(text, close + 1)
        if not after:
            raise _Malformed("a tag that ends in the middle of text: a quote in it")
        tags.append(_decoded(text[at + 1 : close]))
        if kind != '"':
            notes.append(f"strings in quotes {kind}")
        at = close + 1
        comma = False
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            comma |= text[at] == ","
            at += 1
        if not comma and at < len(text) and text[at] != "]":
            notes.append("a comma or bracket missing")
    if at >= len(text) or text[at] != "]":
        if not tags:
            raise _Malformed("cut off before the first tag ended")
        notes.append("cut off")
    elif not AFTER_LIST.match(text, at + 1) or LIST.search(text, at + 1):
        raise _Malformed("a list of strings within other text")
    elif text[at + 1 :].strip(" \t\r\n`"):
        notes.append("text after it")
    return tags, _listed(notes) or "commas or brackets too many"
