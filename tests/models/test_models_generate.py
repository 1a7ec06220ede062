"""Generation on tiny random decoders: against the full forward pass, and against itself in other batches."""

from collections import Counter
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_cases import WORDS, Letters, draw_ids, language_model, random_decoder, read
from flax import nnx

from mig_jax.core.errors import UserError
from mig_jax.models.inference.decoding import Draw, Rule, choose, decode, prefill
from mig_jax.models.inference.generate import generate, plan_prompts
from mig_jax.models.inference.language_model import LanguageModel
from mig_jax.models.networks.decoder import Decoder
from mig_jax.models.networks.sharding import model_mesh

CLOSE = 1e-5  # sums of 24 to 40 products in another order
LENGTHS = [5, 1, 17, 9, 30, 12, 40]


class Endless(Letters):
    """A tokenizer without a token that ends a text: answers are as long as they may be."""

    eos_ids = frozenset()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """Two layers; one sees 6 tokens back, as a Mistral's, the other everything."""
    return random_decoder(read(model_type="qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1))


@pytest.fixture(scope="module")
def model(decoder) -> LanguageModel:
    return language_model(decoder, Endless())


@pytest.fixture(scope="module")
def answers(model):
    """Of seven prompts, 20 tokens each, by the most likely token."""
    return generate(model, draw_ids(0, LENGTHS), max_new_tokens=20)


@pytest.fixture(scope="module")
def sampled(model):
    return generate(model, draw_ids(0, LENGTHS), max_new_tokens=20, temperature=1.3, top_k=20, top_p=0.9, seed=4)


def all_logits(model: LanguageModel, texts: list[list[int]]) -> np.ndarray:
    """[N, 64, V] by one pass without a cache."""
    id_NxL, segment_NxL = np.zeros((2, len(texts), 64), np.int32)
    for n, ids in enumerate(texts):
        id_NxL[n, : len(ids)], segment_NxL[n, : len(ids)] = ids, 1

    @jax.jit
    def run(state):
        net = nnx.merge(model.loaded.graphdef, state)
        return net.logits(net(id_NxL, segment_NxL).last_BxLxD)

    return np.asarray(run(model.loaded.state))


def test_each_step_is_the_full_pass_s(model, answers):
    prompts = draw_ids(0, LENGTHS)
    full = all_logits(model, [ids + answer.tokens.tolist() for ids, answer in zip(prompts, answers, strict=True)])
    for n, (ids, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert len(answer.tokens) == 20
        assert answer.finished == "length"
        assert answer.text == Letters().decode(answer.tokens.tolist())
        logits = full[n, len(ids) - 1 : len(ids) + 19]
        assert logits.argmax(-1).tolist() == answer.tokens.tolist()
        expected = jax.nn.log_softmax(logits)[np.arange(20), answer.tokens]
        np.testing.assert_allclose(answer.logprobs, expected, atol=CLOSE)


@pytest.mark.parametrize("kind", ["window", "full"])
def test_cached_states_are_the_full_pass_s(kind):
    """Not the chosen tokens only: all states, a token at a time after a left-padded start of three."""
    decoder = random_decoder(read(model_type="mistral", sliding_window=4 if kind == "window" else None))
    id_2xL = np.array(draw_ids(3, [12, 12]), np.int32)
    segment_2xL = np.ones_like(id_2xL)
    segment_2xL[1, :2] = 0

    @nnx.jit
    def cached(model, ids, segments, cache):
        states = model(ids, segments, cache=cache)
        return states.last_BxLxD, states.cache

    @nnx.jit
    def full(model):
        return model(id_2xL, segment_2xL).last_BxLxD

    expected = np.asarray(full(decoder))
    found, cache = cached(decoder, id_2xL[:, :3], segment_2xL[:, :3], decoder.empty_cache(2, 16))
    parts = [found]
    for at in range(3, 12):
        found, cache = cached(decoder, id_2xL[:, at : at + 1], segment_2xL[:, at : at + 1], cache)
        parts.append(found)
    real = segment_2xL[:, :, None]
    np.testing.assert_allclose(np.concatenate(parts, axis=1) * real, expected * real, atol=CLOSE)


def same(one, two):
    for a, b in zip(one, two, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert (a.text, a.finished) == (b.text, b.finished)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=CLOSE)


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
@pytest.mark.parametrize("batching", [{"batch_rows": 2}, {"batch_rows": 7, "batch_tokens": 100}])
def test_the_batch_does_not_matter(model, answers, sampled, kind, batching):
    options = {} if kind == "greedy" else {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 4}
    found = generate(model, draw_ids(0, LENGTHS), max_new_tokens=20, **options, **batching)
    same(found, answers if kind == "greedy" else sampled)


def test_the_order_of_the_prompts_does_not_matter_to_the_most_likely(model, answers):
    order = [3, 6, 0, 2, 5, 1, 4]
    prompts = draw_ids(0, LENGTHS)
    same(generate(model, [prompts[n] for n in order], max_new_tokens=20), [answers[n] for n in order])


def test_a_mesh_gives_the_same(decoder, answers):
    """Rows over 2 x 2 devices, heads and vocabulary over 2: seven prompts become eight rows."""
    mesh = model_mesh(2, 2, 2)
    cut = random_decoder(decoder.config, mesh=mesh)
    assert len(cut.embed.embedding[...].sharding.device_set) == 8
    same(generate(language_model(cut, Endless(), mesh), draw_ids(0, LENGTHS), max_new_tokens=20), answers)


def test_a_text_ends_where_the_model_says(decoder, answers):
    """The tokens that end a text are made those that some answers have in them."""
    ends = frozenset([int(answers[0].tokens[3]), int(answers[2].tokens[17])])
    words = Letters()
    words.eos_ids = ends
    found = generate(language_model(decoder, words), draw_ids(0, LENGTHS), max_new_tokens=20)
    reasons = Counter()
    for one, plain in zip(found, answers, strict=True):
        at = next((at for at, token in enumerate(plain.tokens.tolist()) if token in ends), None)
        assert one.finished == ("length" if at is None else "eos")
        assert one.tokens.tolist() == plain.tokens[: None if at is None else at + 1].tolist()
        assert one.text == words.decode(plain.tokens[:at].tolist())
        assert len(one.logprobs) == len(one.tokens)
        reasons[one.finished] += 1
    assert found[0].finished == "eos"
    assert len(found[0].tokens) <= 4


def borders(tokens: np.ndarray) -> list[int]:
    return np.cumsum([len(WORDS[token]) for token in tokens]).tolist()


@pytest.mark.parametrize("length", [1, 3, 6])
def test_a_stop_string_is_found_wherever_it_begins(model, answers, length):
    """Every place of an answer in turn: inside tokens, over their borders, over the border of two device calls."""
    prompts = draw_ids(0, LENGTHS)
    most = max(range(len(answers)), key=lambda n: len(set(answers[n].text)))
    text, tokens = answers[most].text, answers[most].tokens
    stops = {text[at : at + length] for at in range(0, len(text) - length + 1, 2)}
    crossing = 0
    for stop in sorted(stops)[:6]:
        # Alone in its batch, with a second string that does not occur.
        [found] = generate(model, [prompts[most]], max_new_tokens=20, stop=[stop, "<pad><pad>"])
        at = text.index(stop)
        count = next(n for n, end in enumerate(borders(tokens), 1) if end >= at + length)
        assert found.finished == "stop"
        assert found.text == text[:at]
        assert found.tokens.tolist() == tokens[:count].tolist()
        np.testing.assert_allclose(found.logprobs, answers[most].logprobs[:count], atol=CLOSE)
        crossing += len([end for end in borders(tokens) if at < end < at + length])
    assert crossing > 0 or length == 1


def test_a_stop_string_over_the_border_of_two_calls(model, sampled):
    """The first token comes with the prompt, the next 16 by one call: the string has two of these and two more."""
    options = {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 4}
    prompts = draw_ids(0, LENGTHS)
    ends = [borders(answer.tokens) for answer in sampled]
    stops = [answer.text[at[14] : at[18]] for answer, at in zip(sampled, ends, strict=True)]
    [n, *_] = [n for n, answer in enumerate(sampled) if answer.text.index(stops[n]) == ends[n][14]]
    found = generate(model, prompts, max_new_tokens=20, stop=stops[n], **options)[n]
    assert found.text == sampled[n].text[: ends[n][14]]
    assert found.tokens.tolist() == sampled[n].tokens[:19].tolist()


def test_of_several_stop_strings_the_first_in_the_text_counts(model, sampled):
    """Two that one token completes: the text is cut where the longer begins. A third comes later."""
    options = {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 4}
    fits = [one.text.index(one.text[3:5]) == 3 and one.text.index(one.text[1:5]) == 1 for one in sampled]
    n = fits.index(True)
    text = sampled[n].text
    for stop in ([text[3:5], text[1:5], text[9:]], [text[9:], text[1:5], text[3:5]]):
        found = generate(model, draw_ids(0, LENGTHS), max_new_tokens=20, stop=stop, **options)[n]
        assert found.text == text[:1]


def test_steps_end_with_the_last_row(model):
    """The cache's length counts the steps that were taken."""
    id_BxL = np.array(draw_ids(5, [8, 8]), np.int32)
    draw = Draw(jax.random.key(0), np.arange(2, dtype=np.int32), np.float32(1), np.float32(1))
    rule, none = Rule(greedy=True, top_k=None, nucleus=False), np.zeros(0, np.int32)
    fixed = {"rule": rule, "exact": True}

    net = model.loaded.graphdef, model.loaded.state

    def steps(ended, limit, ends):
        live, *_ = prefill(*net, id_BxL, np.ones_like(id_BxL), draw, none, cache_length=72, **fixed)
        live, token_BxC, _ = decode(*net, live, np.array(ended), np.int32(limit), draw, ends, steps=16, **fixed)
        return int(live.cache.length) - 8, np.asarray(token_BxC)

    taken, tokens = steps([False, False], 100, none)
    assert taken == 16
    assert steps([True, True], 100, none)[0] == 0
    assert steps([False, False], 6, none)[0] == 5  # one token was chosen by prefill
    end = np.array([tokens[0, 4]])
    first = [next((at for at, token in enumerate(row) if token == end[0]), 15) for row in tokens.tolist()]
    assert steps([False, True], 100, end)[0] == first[0] + 1
    assert steps([False, False], 100, end)[0] == max(first) + 1


def test_a_seed_decides_the_draws(model, sampled):
    prompts = draw_ids(0, LENGTHS)
    options = {"max_new_tokens": 20, "temperature": 1.3, "top_k": 20, "top_p": 0.9}
    other = generate(model, prompts, seed=5, **options)
    assert all(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(sampled, other, strict=True))
    # Equal prompts are drawn for by their places; what was before them is not.
    twice = generate(model, [prompts[0], prompts[0]], seed=4, **options)
    assert twice[0].tokens.tolist() == sampled[0].tokens.tolist() != twice[1].tokens.tolist()


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_the_most_likely_alone_is_greedy(model, answers, options):
    same(generate(model, draw_ids(0, LENGTHS), max_new_tokens=20, temperature=2.0, **options), answers)


@pytest.mark.parametrize(
    "rule, top_p, kept",
    [
        (Rule(False, None, False), 1.0, [0, 1, 2, 3, 4]),
        (Rule(False, 3, False), 1.0, [0, 1, 4]),
        (Rule(False, None, True), 0.75, [0, 1, 4]),  # 0.4 + 0.25 < 0.75 <= 0.4 + 0.25 + 0.2
        (Rule(False, 4, True), 0.65, [0, 1]),  # of the four, which are 0.95 together, 0.4 + 0.25 is 0.68
        (Rule(False, 9, False), 1.0, [0, 1, 2, 3, 4]),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_draws_have_their_probabilities(rule, top_p, kept, temperature):
    """chi-square of 4,000 draws with a fixed seed: 25 is passed by chance once in 20,000 seeds with 4 degrees."""
    flat = np.array([0.4, 0.25, 0.1, 0.05, 0.2])  # what the temperature makes of the logits
    expected = np.zeros(5)
    expected[kept] = flat[kept] / flat[kept].sum()
    logits = jnp.tile(temperature * jnp.log(jnp.array(flat, jnp.float32)) + 3.0, (4000, 1))
    draw = Draw(jax.random.key(11), jnp.arange(4000), jnp.float32(temperature), jnp.float32(top_p))
    drawn = np.bincount(np.asarray(choose(logits, rule, draw, jnp.int32(7))), minlength=5)
    assert set(np.flatnonzero(drawn)) == set(kept)
    assert (((drawn - 4000 * expected) ** 2)[kept] / (4000 * expected[kept])).sum() < 25


def test_of_equals_the_lowest_id_is_the_most_likely():
    logits = jnp.array([[1.0, 3.0, 3.0, 2.0]])
    draw = Draw(jax.random.key(0), jnp.arange(1), jnp.float32(1), jnp.float32(1))
    for rule in (Rule(True, None, False), Rule(False, 1, False)):
        assert choose(logits, rule, draw, jnp.int32(0)).tolist() == [1]


def test_an_empty_prompt_is_the_beginning_of_a_text(decoder, model):
    empty, bos, string = generate(model, [[], [1], ""], max_new_tokens=5)
    assert empty.tokens.tolist() == bos.tokens.tolist() == string.tokens.tolist()
    words = Letters()
    words.bos_id = None
    with pytest.raises(UserError, match="prompt 1, 2 has no tokens"):
        generate(language_model(decoder, words), [[5], [], ""], max_new_tokens=5)


def test_strings_are_encoded(model, answers):
    ids = Letters().encode(["hello world"])
    assert generate(model, ["hello world"], max_new_tokens=5)[0].tokens.tolist() == (
        generate(model, ids, max_new_tokens=5)[0].tokens.tolist()
    )
    assert generate(model, [], max_new_tokens=5) == []


def test_what_does_not_fit_is_refused_by_name(model):
    with pytest.raises(
        UserError, match=r"prompt 1 has 120 tokens, and 20 new tokens make more than 128.*prompt 3 has 109"
    ):
        generate(model, draw_ids(0, [3, 120, 108, 109]), max_new_tokens=20)
    with pytest.raises(UserError, match="prompt 1 has the id 99; must be 0 to 32"):
        generate(model, [[3], [4, 99, 98]], max_new_tokens=20)


def test_all_options_that_are_out_of_range_are_said_at_once(model):
    with pytest.raises(UserError) as error:
        generate(model, [[3]], max_new_tokens=0, temperature=-1, top_k=0, top_p=1.5, stop=["x", ""], seed=-1,
                 batch_rows=0, batch_tokens=0)  # fmt: skip
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "stop", "seed", "batch_rows", "batch_tokens"):
        assert name in str(error.value)
    with pytest.raises(UserError, match="not one string"):
        generate(model, "hello", max_new_tokens=1)


def test_progress_is_told(model):
    told = []
    generate(model, draw_ids(0, [30, 4, 5]), max_new_tokens=5, batch_rows=2, progress=lambda *which: told.append(which))
    assert told == [("generate", 2, 3, "prompts"), ("generate", 3, 3, "prompts")]


def test_the_plan_holds_every_prompt_once_in_few_shapes():
    length = np.random.default_rng(0).integers(1, 2000, 1000)
    plan = plan_prompts(length, 4096, 16, 8192)
    assert sorted(n for batch in plan for n in batch.text) == list(range(1000))
    assert all(length[batch.text].max() <= batch.width for batch in plan)
    assert all(len(batch.text) <= batch.rows <= 16 for batch in plan)
    assert all(batch.rows * batch.width <= 8192 for batch in plan)
    assert len({(batch.rows, batch.width) for batch in plan}) <= 8  # widths 32 to 2048, and a last batch


@pytest.fixture
def compiled() -> Iterator[Counter]:
    """How often each of the two programs was compiled since the test began."""
    count: Counter = Counter()

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] in ("jit(prefill)", "jit(decode)"):
            count[str(more["fun_name"])] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(hear)
    yield count
    jax.monitoring.unregister_event_duration_listener(hear)


def test_other_prompts_of_like_lengths_compile_nothing(model, compiled):
    """Prompts, numbers of new tokens, seeds, temperatures and stop strings are data."""
    generate(model, draw_ids(1, [20, 3, 31, 9]), max_new_tokens=20, batch_rows=4, temperature=1.0)
    assert compiled == {"jit(prefill)": 1, "jit(decode)": 1}
    for seed in range(3):
        generate(
            model, draw_ids(seed, [20 + seed, 9, 4, 2, 7]), max_new_tokens=40 + seed, batch_rows=4,
            temperature=0.5 + seed, seed=seed, stop=["q"],
        )  # fmt: skip
    assert compiled == {"jit(prefill)": 2, "jit(decode)": 2}  # the fifth prompt's batch has one row
