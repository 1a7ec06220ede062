"""``mig-jax generate``: a language model's answers to prompts, to check a model before it annotates a pool."""

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
    """Answer the prompts; yield the lines to print. With ``out``, write all answers there, then yield a summary.

    Raises:
      UserError: neither or both of prompt and prompts, an unreadable file, a model that is missing or has no chat
        template, a prompt that leaves no room for an answer.
    """
    out = _out(config)
    rows = _rows(config)
    from mig_jax.models.inference.generate import generate
    from mig_jax.models.inference.language_model import load_language_model

    progress("load model", 0, None)
    model = load_language_model(model_spec_of(config.model), mesh=models_mesh(config.mesh, alone=True))
    tokenizer, options = model.tokenizer, config.generate
    chat = tokenizer.template is not None if options.chat == "auto" else options.chat
    answers = generate(
        model,
        [_ids(tokenizer, row, chat, options.system) for row in rows],
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
    """The file of the answers; checked before the model is loaded."""
    if config.out is None:
        return None
    out = Path(config.out).expanduser()
    if out.suffix != ".jsonl":
        raise UserError("must end in .jsonl", key="out", value=config.out)
    if out.is_dir() or not out.absolute().parent.is_dir():
        problem = "is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise UserError(problem, key="out", value=config.out)
    if out.exists() and not config.overwrite:
        raise UserError("exists; overwrite=true replaces it", key="out", value=config.out)
    return out


def _rows(config: GenerateConfig) -> list[dict[str, Any]]:
    """The prompts, each ``{"prompt": ..}`` or ``{"messages": [..]}``, with the other keys of its row."""
    if (config.prompt is None) == (config.prompts is None):
        number = "neither" if config.prompt is None else "both"
        raise UserError(
            f"{number} of prompt=TEXT and prompts=FILE given; give exactly one, as in mig-jax generate 'a question'"
        )
    if config.prompt is not None:
        return [{"prompt": config.prompt}]
    file = Path(str(config.prompts)).expanduser()
    if file.suffix not in (".txt", ".jsonl") or not file.is_file():
        problem = "there is no such file" if not file.exists() else "must be a .txt or .jsonl file"
        raise UserError(problem, key="prompts", value=config.prompts)
    try:
        # Only a line feed ends a line: JSON and prompts may contain other characters at which splitlines() splits.
        lines = file.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error.reason} at byte {error.start})", where=file) from None
    lines = [] if lines == [""] else [line.removesuffix("\r") for line in lines]
    rows, invalid = [], []
    for number, line in enumerate(lines, 1):
        if file.suffix == ".txt":
            rows.append({"prompt": line})
        elif line.strip():
            row = _parsed(line)
            if row is None:
                invalid.append(str(number))
            rows.append(row)
    if invalid:
        more = f" and {len(invalid) - 5} more" if len(invalid) > 5 else ""
        raise UserError(
            f'line {", ".join(invalid[:5])}{more}: not {{"prompt": TEXT}} nor '
            '{"messages": [{"role": .., "content": ..}]}',
            where=file,
        )
    if not rows:
        raise UserError("has no prompts", where=file)
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
    valid = isinstance(messages, list) and messages and "prompt" not in row and all(map(_is_message, messages))
    return row if valid else None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _ids(tokenizer: Any, row: Mapping[str, Any], chat: bool, system: str | None) -> list[int]:
    """The prompt of a row as token ids."""
    if "messages" not in row and not chat:
        [ids] = tokenizer.encode([row["prompt"]])
        return ids
    messages: Sequence[Mapping[str, str]] = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    [ids] = tokenizer.encode_plain([tokenizer.prompt(messages)])
    return ids


def run(config: GenerateConfig, call: Call) -> str:
    """Run the command (for the registry); return the text to print."""
    return "".join(f"{line}\n" for line in run_generate(config, progress=call.progress))
