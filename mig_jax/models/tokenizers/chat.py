"""Chat templates: a list of messages -> the text that a model was tuned to continue.

A template comes with a checkpoint and is a program: it runs in Jinja's sandbox, with the few functions that
transformers gives it (transformers/utils/chat_template_utils.py) and no other. What messages hold never runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import read_json
from mig_jax.models.checkpoints.gguf_header import read_metadata
from mig_jax.models.tokenizers.gguf_tokenizer import gguf_special_tokens

TODAY = datetime(2024, 7, 26)
"""What ``strftime_now`` tells templates, so that a prompt has the same bytes tomorrow: the day that Llama 3's template
falls back to where it is told none."""

GENERATION_START, GENERATION_END = "\ue010generation\ue011", "\ue010endgeneration\ue011"
"""Marks around the body of a ``{% generation %}`` block, where ``chat_prompt`` is asked for them."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Chat(NamedTuple):
    """What a checkpoint says of chats.

    Args:
      template: Jinja's source; None: there is none.
      special_tokens: ``bos_token`` and the like -> the token; templates may name them.
      where: the file, or the files that were looked at, for messages.
    """

    template: str | None
    special_tokens: dict[str, str]
    where: str


def chat_prompt(
    messages: Sequence[Mapping[str, str]],
    template: str | None,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    *,
    today: datetime = TODAY,
    mark_generation: bool = False,
    where: str = "the tokenizer",
) -> str:
    """Messages as one text, special tokens written out: tokenise it without adding them again.

    Args:
      messages: each with ``role`` and ``content``, both strings.
      template, special_tokens, where: of ``load_chat``.
      add_generation_prompt: end where the assistant is to speak.
      today: what the template takes for now.
      mark_generation: put ``GENERATION_START`` and ``GENERATION_END`` around the bodies of ``{% generation %}`` blocks.

    Raises:
      UserError: there is no template, it does not compile, it refuses these messages or reaches for what the sandbox
        does not allow; or a message is not as above.
    """
    if template is None:
        raise UserError(
            f"{where}: no chat template, so messages cannot be made a prompt; take a checkpoint that was tuned for "
            "chats, or put the template into a file chat_template.jinja beside it"
        )
    if isinstance(messages, Mapping | str) or not all(map(_is_message, messages)):
        raise UserError('messages must be a list of {"role": a string, "content": a string}')
    # Plain copies: a template sees no object of ours, whose methods it might call.
    plain = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
    known = {"messages": plain, "add_generation_prompt": add_generation_prompt, "tools": None, "documents": None}
    try:
        return _compiled(template, mark_generation).render(**special_tokens, **known, strftime_now=today.strftime)
    except Exception as error:  # a template can raise anything that Python's operators raise
        at = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        kind = "may not do this" if isinstance(error, jinja2.exceptions.SecurityError) else "failed"
        raise UserError(f"{where}: the chat template {kind}{at}: {type(error).__name__}: {error}") from error


def load_chat(source: Path) -> Chat:
    """Find the template.

    It is in chat_template.jinja, chat_template.json or tokenizer_config.json of a folder, in this order; of
    a GGUF file, its metadata, then chat_template.jinja beside it. Of several named ones it is "default".

    Args:
      source: a checkpoint's folder, or a .gguf file.

    Raises:
      UserError: a file cannot be read, or holds something else where the template should be.
    """
    if source.suffix == ".gguf":
        return gguf_chat(source, read_metadata(source))
    files = {name: source / name for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")}
    there = {name: file for name, file in files.items() if file.is_file()}
    config = read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in there else {}
    template = None
    if "chat_template.jinja" in there:
        template = _source(there["chat_template.jinja"])
    for name in ("chat_template.json", "tokenizer_config.json"):
        if template is None and name in there:
            template = _template(read_json(there[name]).get("chat_template"), f"{there[name]}, chat_template")
    where = f"{source} ({', '.join(there)})" if there else f"{source} (none of {', '.join(files)})"
    return Chat(template, _special_tokens(source, config), where)


def gguf_chat(file: Path, metadata: Mapping[str, Any]) -> Chat:
    """``load_chat`` of a .gguf file whose metadata is read already: it holds the vocabulary, and is long."""
    template = _template(metadata.get("tokenizer.chat_template"), f"{file}, tokenizer.chat_template")
    beside = file.with_name("chat_template.jinja")
    if template is None and beside.is_file():
        return Chat(_source(beside), gguf_special_tokens(metadata), str(beside))
    return Chat(template, gguf_special_tokens(metadata), str(file))


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as a template ({error})") from error


def _template(said: Any, where: str) -> str | None:
    """A string, or a list of ``{"name": .., "template": ..}``."""
    if isinstance(said, list) and all(isinstance(one, Mapping) for one in said):
        names = {one.get("name"): one.get("template") for one in said}
        if said and "default" not in names:
            raise UserError(f"{where}: no template is named default; there is {', '.join(map(str, names))}")
        said = names.get("default")
    if said is not None and not isinstance(said, str):
        raise UserError(f"{where}: must be a string or a list of named templates, not {type(said).__name__}")
    return said


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Of special_tokens_map.json, which older checkpoints have, and tokenizer_config.json, which goes before it."""
    older = folder / "special_tokens_map.json"
    said = (read_json(older) if older.is_file() else {}) | {k: v for k, v in config.items() if v is not None}
    texts = {name: said[name].get("content") if isinstance(said[name], dict) else said[name]
             for name in _SPECIAL if name in said}  # fmt: skip
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _Generation(jinja2.ext.Extension):
    """``{% generation %} .. {% endgeneration %}`` marks what an assistant said, for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own way)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        if self.environment.globals.get("mark_generation"):
            start, end = (
                jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)]) for mark in (GENERATION_START, GENERATION_END)
            )
            body = [start, *body, end]
        return jinja2.nodes.Scope(body, lineno=line)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
    """As transformers has it: Jinja's own would escape for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own hands out an undefined value for what it forbids, which prints as nothing; this one says so."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise jinja2.exceptions.SecurityError(f"{attribute!r} of a {type(obj).__name__}")


@lru_cache(maxsize=16)
def _compiled(template: str, mark_generation: bool) -> jinja2.Template:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    sandbox.globals["mark_generation"] = mark_generation
    tojson: Callable[..., str] = _json
    sandbox.filters["tojson"] = tojson
    sandbox.globals["raise_exception"] = _refuse
    return sandbox.from_string(template)
