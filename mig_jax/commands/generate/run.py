"""``mig-jax generate``: prompts in, a language model's answers out: what does it do, before a pool is given to it?"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mig_jax.commands.call import Call
from mig_jax.commands.generate.config import GenerateConfig
from mig_jax.core.errors import UserError
from mig_jax.core.files import write_atomic
from mig_jax.core.progress import Progress, silent
from mig_jax.models.configured import model_spec_of, models_mesh


def run_generate(config: GenerateConfig, *, progress: Progress = silent) -> Iterator[str]:
    """Answer the prompts: the lines to print. With ``out`` they are written there, all or none, and one line says so.

    Raises:
      UserError: no prompt or two kinds of them, a file that is none, a model that is not there or has no template for
        chats; a prompt that leaves no room for an answer.
    """
    out = _out(config)
    rows = _rows(config)
    from mig_jax.models.inference.generate import generate
    from mig_jax.models.inference.language_model import load_language_model

    progress("load model", 0, None)
    model = load_language_model(model_spec_of(config.model), mesh=models_mesh(config.mesh, alone=True))
    words, options = model.tokenizer, config.generate
    chat = words.template is not None if options.chat == "auto" else options.chat
    answers = generate(
        model,
        [_ids(words, row, chat, options.system) for row in rows],
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        stop=options.stop,
        seed=config.seed,
        progress=progress,
    )
    if out is None:
        yield from (answer.text for answer in answers)
        return
    lines = [
        json.dumps(
            row | {"answer": answer.text, "finished": answer.finished, "tokens": len(answer.tokens),
                   "logprob": round(float(answer.logprobs.sum()), 4)},
            ensure_ascii=False,
        )
        for row, answer in zip(rows, answers, strict=True)
    ]  # fmt: skip
    write_atomic(out, b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines))
    yield f"{len(lines):,} answers, {sum(len(answer.tokens) for answer in answers):,} tokens: {out}"


def _out(config: GenerateConfig) -> Path | None:
    """Where the answers go; refused before anything is loaded."""
    if config.out is None:
        return None
    out = Path(config.out).expanduser()
    if out.suffix != ".jsonl":
        raise UserError(f"out={config.out}: must end in .jsonl")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"out={config.out}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    if out.exists() and not config.overwrite:
        raise UserError(f"out={config.out}: exists; overwrite=true replaces it")
    return out


def _rows(config: GenerateConfig) -> list[dict[str, Any]]:
    """The prompts, each ``{"prompt": ..}`` or ``{"messages": [..]}``, with whatever else its row has."""
    if (config.prompt is None) == (config.prompts is None):
        given = "neither" if config.prompt is None else "both"
        raise UserError(
            f"{given} of prompt=TEXT and prompts=FILE given; exactly one is needed, as in mig-jax generate 'a question'"
        )
    if config.prompt is not None:
        return [{"prompt": config.prompt}]
    file = Path(str(config.prompts)).expanduser()
    if file.suffix not in (".txt", ".jsonl") or not file.is_file():
        what = "there is no such file" if not file.exists() else "must be a .txt or .jsonl file"
        raise UserError(f"prompts={config.prompts}: {what}")
    try:
        # Only a line feed ends a line: JSON and prompts may hold the other characters at which splitlines() cuts.
        lines = file.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    lines = [] if lines == [""] else [line.removesuffix("\r") for line in lines]
    rows, wrong = [], []
    for number, line in enumerate(lines, 1):
        if file.suffix == ".txt":
            rows.append({"prompt": line})
        elif line.strip():
            row = _parsed(line)
            if row is None:
                wrong.append(str(number))
            rows.append(row)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f'{file}: line {", ".join(wrong[:5])}{more}: not {{"prompt": TEXT}} nor '
            '{"messages": [{"role": .., "content": ..}]}'
        )
    if not rows:
        raise UserError(f"{file}: has no prompts")
    return rows


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    messages = row.get("messages")
    if messages is None:
        return row if isinstance(row.get("prompt"), str) else None
    right = isinstance(messages, list) and messages and "prompt" not in row and all(map(_is_message, messages))
    return row if right else None


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("role", "content"))


def _ids(words: Any, row: Mapping[str, Any], chat: bool, system: str | None) -> list[int]:
    """The tokens that the model goes on from."""
    if "messages" not in row and not chat:
        [ids] = words.encode([row["prompt"]])
        return ids
    messages: Sequence[Mapping[str, str]] = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    [ids] = words.encode_plain([words.prompt(messages)])
    return ids


def run(config: GenerateConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    return "".join(f"{line}\n" for line in run_generate(config, progress=call.progress))
