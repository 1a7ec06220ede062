"""The models beside sentence-transformers and transformers on torch: one machine, one process, in turns.

    python -m experiments.bench_models --pool POOL --parts embed,logprobs,matmul --out runs/models

embed: MiniLM over the pool's rows, against sentence-transformers. logprobs: SmolLM2-135M's log-probabilities of the
rows, against transformers on torch. Both need torch (`make torch` makes .venv-torch, which has it); without it only
mig_jax is timed. matmul: a decoder of random weights in Mistral-7B's shape (``--layers 32 --width 4096``; smaller on a
CPU) embeds texts of 512 tokens, against one large matrix product of the same type on the device.

Prints the machine. Compilation and loading are timed apart: each contestant runs once before, then in turns.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.machine import machine
from mig_jax.models.checkpoints.checkpoint import MINILM, SMOLLM2_135M, EmbedderSpec, find_checkpoint
from mig_jax.models.inference.flops import matmul_rate
from mig_jax.models.tokenizers.tokens import Tokens
from mig_jax.pool.configured import bundled_pool


def in_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run. Every contestant has run before, so that nothing is compiled or read here."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    """Medians, rates and the ratio of the first contestant to the second; printed and returned."""
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in seconds.items():
        rate = tokens / medians[name]
        print(f"  {name:<34} {medians[name]:8.2f} s ({min(each):.2f}, {max(each):.2f})  {rate:10,.0f} tokens/s")
    facts: dict[str, Any] = {"seconds": seconds, "tokens": tokens}
    if len(medians) == 2:
        ours, theirs = medians.values()
        facts["ratio"] = theirs / ours
        print(f"  mig_jax is {facts['ratio']:.2f} times as fast")
    return facts


def sample_rows(pool: str, count: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Some rows of a pool, as (role, content) turns; drawn, not the first."""
    from mig_jax.pool import load_pool

    loaded = load_pool(pool)
    usable = np.flatnonzero(loaded.status == 0)
    if len(usable) < count:
        raise SystemExit(f"{pool} has {len(usable)} usable rows, not {count}")
    drawn = np.sort(np.random.default_rng(seed).permutation(usable)[:count])
    return [dialog or [] for dialog in loaded.dialogs(drawn)]


def bench_embed(pool: str, count: int, rounds: int) -> dict[str, Any]:
    """All of a row's turns, joined by a blank line; 256 tokens at most, both sides."""
    from mig_jax.models.inference.embed import load_embedder

    texts = ["\n\n".join(content for _, content in dialog) for dialog in sample_rows(pool, count)]
    start = time.perf_counter()
    embedder = load_embedder(MINILM)
    print(f"embed: {count:,} texts, MiniLM, float32; loading {time.perf_counter() - start:.1f} s")
    contestants: dict[str, Callable[[], Any]] = {"mig_jax": lambda: embedder.embed(texts)}
    start = time.perf_counter()
    ours = embedder.embed(texts)
    print(f"  first run, with compilation {time.perf_counter() - start:.1f} s")
    torch = torch_or_none()
    if torch is not None:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

        model = SentenceTransformer(str(find_checkpoint(MINILM).folder), device="cpu")
        model.max_seq_length = MINILM.max_length

        def encode() -> np.ndarray:
            return model.encode(texts, batch_size=32, normalize_embeddings=True)

        contestants["sentence-transformers, batches of 32"] = encode
        print(f"  largest difference of a number: {np.abs(ours - encode()).max():.1e}")
    return report(in_turns(contestants, rounds), int(embedder.tokenize(texts).length.sum()))


def bench_logprobs(pool: str, count: int, rounds: int, max_length: int = 512) -> dict[str, Any]:
    """Every token given those before it; the whole row as one text, cut at 512 tokens."""
    from mig_jax.models.inference.language_model import load_language_model
    from mig_jax.models.inference.logprobs import token_logprobs

    start = time.perf_counter()
    model = load_language_model(SMOLLM2_135M)
    texts = ["\n\n".join(content for _, content in dialog) for dialog in sample_rows(pool, count)]
    ids = [one[:max_length] for one in model.tokenizer.encode(texts)]
    ids = [one for one in ids if len(one) > 1]
    print(f"logprobs: {len(ids):,} rows, SmolLM2-135M, float32; loading {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    ours = token_logprobs(model, ids)
    print(f"  first run, with compilation {time.perf_counter() - start:.1f} s")
    contestants: dict[str, Callable[[], Any]] = {"mig_jax": lambda: token_logprobs(model, ids)}
    torch = torch_or_none()
    if torch is not None:
        run = torch_logprobs(torch, ids)
        contestants["transformers on torch, batches of 8"] = run
        theirs = np.concatenate([np.concatenate([[np.nan], one]) for one in run()])
        print(f"  largest difference of a log-probability: {np.nanmax(np.abs(ours - theirs)):.1e}")
    return report(in_turns(contestants, rounds), sum(map(len, ids)))


def torch_logprobs(torch: Any, ids: list[list[int]], batch: int = 8) -> Callable[[], list[np.ndarray]]:
    """The usual loop: batches of rows of like length, padded right, the log-softmax of all logits."""
    from transformers import AutoModelForCausalLM

    file = find_checkpoint(SMOLLM2_135M).files[0]
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))

    def run() -> list[np.ndarray]:
        out: list[np.ndarray] = [np.empty(0)] * len(ids)
        for first in range(0, len(order), batch):
            part = order[first : first + batch]
            width = max(len(ids[n]) for n in part)
            padded = torch.tensor([ids[n] + [0] * (width - len(ids[n])) for n in part])
            mask = torch.tensor([[1] * len(ids[n]) + [0] * (width - len(ids[n])) for n in part])
            with torch.inference_mode():
                logits = model(input_ids=padded, attention_mask=mask).logits[:, :-1]
                logprob = logits.log_softmax(-1).gather(-1, padded[:, 1:, None])[..., 0]
            for row, n in enumerate(part):
                out[n] = logprob[row, : len(ids[n]) - 1].numpy()
        return out

    return run


def torch_or_none() -> Any:
    """torch, on all cores; None, with a message, where it is not installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("  torch is not installed: only mig_jax is timed")
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    return torch


def bench_matmul(args: argparse.Namespace) -> dict[str, Any]:
    """Tokens/s and FLOP/s of a Mistral of random weights, beside one matrix product's."""
    from flax import nnx

    from mig_jax.models.checkpoints.decoder_config import DecoderConfig, Rope
    from mig_jax.models.inference.embed import Embedder
    from mig_jax.models.inference.loaded import LoadedModel
    from mig_jax.models.inference.packing import usual_batch_tokens
    from mig_jax.models.networks.decoder import Decoder
    from mig_jax.models.networks.layers import Build
    from mig_jax.models.networks.sharding import init_model
    from mig_jax.models.tokenizers.tokens import Tokenized, Tokenizer

    config = DecoderConfig(
        vocab_size=32_000, hidden_size=args.width, num_layers=args.layers, num_heads=args.width // 128,
        num_kv_heads=max(1, args.width // 512), head_dim=128, intermediate_size=args.width * 7 // 2, max_positions=4096,
        eps=1e-5, activation="silu", rope=Rope(), windows=(4096,) * args.layers, qkv_bias=False, out_bias=False,
        mlp_bias=False, qk_norm=False, tied=False,
    )  # fmt: skip
    start = time.perf_counter()
    options = Build(args.dtype, args.attention)
    model = init_model(lambda: Decoder(config, options, head=False, rngs=nnx.Rngs(0)))
    loaded = LoadedModel(*nnx.split(model))
    leaves = [leaf.get_value() for _, leaf in nnx.to_flat_state(loaded.state)]
    jax.block_until_ready(leaves)
    table = config.vocab_size * config.hidden_size
    weights = sum(leaf.size for leaf in leaves if leaf.ndim > 1) - table
    print(f"matmul: {(weights + table) / 1e9:.2f}e9 random weights, {args.dtype}; {time.perf_counter() - start:.1f} s")
    spec = EmbedderSpec(name="random", pooling="last", dtype=args.dtype, max_length=512)
    embedder = Embedder(
        spec, loaded, Tokenizer(lambda texts: Tokenized([], 0), ""), config, config.hidden_size, config.vocab_size, 512,
        "random", args.batch_tokens or usual_batch_tokens(),
    )  # fmt: skip
    count = args.texts_512
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 512 * count).astype(np.int32)
    tokens = Tokens(ids, np.arange(0, len(ids) + 1, 512))

    def run() -> list[np.ndarray]:
        return [vector for _, vector in embedder.run(tokens, embedder.plan(tokens))]

    start = time.perf_counter()
    run()
    print(f"  first run, with compilation {time.perf_counter() - start:.1f} s")
    seconds = statistics.median(in_turns({"embed": run}, args.rounds)["embed"])
    # Two operations a weight and token; scores and their sums: 4 L D a token, half of it before the diagonal.
    per_token = 2 * weights + config.num_layers * 2 * 512 * config.num_heads * config.head_dim
    rate, peak = len(ids) * per_token / seconds, matmul_rate(args.dtype, size=args.matmul, rounds=10)
    print(f"  {len(ids) / seconds:,.0f} tokens/s in texts of 512: {rate / 1e12:.2f} TFLOP/s")
    print(f"  one product of {args.matmul:,} x {args.matmul:,} {args.dtype}: {peak / 1e12:.2f} TFLOP/s")
    print(f"  share {rate / peak:.0%}")
    return {"tokens_per_second": len(ids) / seconds, "flops": rate, "matmul_flops": peak, "share": rate / peak}


def arguments() -> argparse.Namespace:
    """The command line."""
    cpu = jax.default_backend() == "cpu"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pool", help="real rows; default: the bundled pool, which is small")
    p.add_argument("--parts", default="embed,logprobs,matmul")
    p.add_argument("--texts", type=int, default=2000)
    p.add_argument("--rows", type=int, default=200)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--layers", type=int, default=2 if cpu else 32)
    p.add_argument("--width", type=int, default=512 if cpu else 4096, help="a multiple of 512")
    p.add_argument("--dtype", default="float32" if cpu else "bfloat16")
    p.add_argument("--attention", default="auto")
    p.add_argument("--texts-512", type=int, default=16 if cpu else 512)
    p.add_argument("--batch-tokens", type=int)
    p.add_argument("--matmul", type=int, default=2048 if cpu else 8192)
    p.add_argument("--out", type=Path, help="a folder for bench_models.json")
    return p.parse_args()


def main() -> None:
    """Run the chosen parts."""
    args = arguments()
    print(f"machine: {machine()}")
    pool = args.pool or str(bundled_pool())
    parts = {
        "embed": lambda: bench_embed(pool, args.texts, args.rounds),
        "logprobs": lambda: bench_logprobs(pool, args.rows, args.rounds),
        "matmul": lambda: bench_matmul(args),
    }
    unknown = set(args.parts.split(",")) - set(parts)
    if unknown:
        raise SystemExit(f"--parts: there are {', '.join(parts)}, not {', '.join(sorted(unknown))}")
    facts = {name: parts[name]() for name in args.parts.split(",")}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench_models.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
