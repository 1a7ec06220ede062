"""IFD against what the code of its two papers computed on real rows, and against its formula on a tiny model."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import annotate_cases as cases
import numpy as np
import pytest
from scorer_cases import Ran, inputs_of, kinds, model_config, run

from mig_jax.commands.annotate.annotator import Annotation
from mig_jax.commands.annotate.ifd import FORMS, SCORE, VERSION, Ifd, Pair, PairTokens, pair_tokens
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import SMOLLM2_135M, ModelSpec
from mig_jax.models.inference.language_model import FoundModel, find_language_model, load_language_model
from mig_jax.models.inference.logprobs import mean_losses, token_logprobs
from mig_jax.models.inference.packing import plan_batches
from mig_jax.pool.exchanges import Exchange
from mig_jax.samplers import find_sampler
from mig_jax.samplers.config import SamplerOptions

MAX_LENGTH = {"cherry": 512, "superfiltering": 1024}
NAMES = list(FORMS)


@pytest.fixture(scope="module")
def golden_rows(golden: Path) -> tuple[list[Exchange], list[dict[str, Any]]]:
    """40 rows, and what the reference made of each."""
    with gzip.open(golden / "ifd/rows.json.gz", "rt") as file:
        stored = json.load(file)
    return [Exchange(row["instruction"], row["input"], row["output"]) for row in stored["rows"]], stored["records"]


@pytest.fixture(scope="module")
def smollm() -> FoundModel:
    try:
        return find_language_model(SMOLLM2_135M)
    except UserError as error:
        pytest.skip(f"SmolLM2's weights are not on this machine: {error}")


def of(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """The reference's record of a row in one form."""
    if name == "cherry":
        return record | {"alone": record.get("mean_direct"), "after": record.get("mean_cond")}
    super_ = record["super"]
    return super_ | {"alone": super_["loss_A_direct"], "after": super_["loss_A_condition"], "skip": None}


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_are_the_reference_s(name: str, golden_rows, smollm):
    """Ids, where the answer starts and where it is cut, and the rows that are dropped."""
    exchanges, records = golden_rows
    texts = pair_tokens(smollm.tokenizer.encode, FORMS[name], exchanges, MAX_LENGTH[name])
    assert len(texts.first) == 2 * len(records) == 80
    dropped = set()
    for e, record in enumerate(records):
        stored = of(name, record)
        if stored["skip"] is not None or math.isnan(stored["alone"]):
            dropped.add(e)
            continue
        direct, after = (texts.tokens.id[slice(*texts.tokens.ptr[n : n + 2])].tolist() for n in (2 * e, 2 * e + 1))
        assert (direct, after) == (stored["direct_ids"], stored["cond_ids"]), e
        assert texts.first[2 * e + 1] == stored["cond_start"]
        if name == "cherry":
            assert texts.first[2 * e] == stored["direct_start"]
            assert (len(direct) - texts.first[2 * e], len(after) - stored["cond_start"]) == (
                stored["direct_len"],
                stored["cond_len"],
            )
    expected = {
        "cherry": {26: "the prompt fills max_length"},
        "superfiltering": dict.fromkeys((0, 9), "no token of the answer counts"),
    }[name]
    assert texts.why == expected
    assert dropped == set(expected)
    lengths = texts.tokens.length.reshape(-1, 2)
    assert (lengths[sorted(dropped)] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_length", [40, 100, 160, 180])
def test_the_cuts_are_the_reference_s(name: str, max_length: int, golden_rows, smollm):
    """What ``encode(text, truncation=True, max_length=...)`` keeps, and the tests of data_by_IFD.py, written out."""
    exchanges, _ = golden_rows
    texts = pair_tokens(smollm.tokenizer.encode, FORMS[name], exchanges, max_length)
    outcomes = set()
    for e, exchange in enumerate(exchanges):
        prompt, answer = FORMS[name].prompt(exchange), exchange.output or ""
        before = "### Response:" if name == "cherry" else ""
        encoded = smollm.tokenizer.encode([prompt, before + answer, prompt + answer, before])
        length = len(encoded[0][:max_length])
        direct = encoded[1][: max_length - length + (4 if name == "cherry" else 1)]
        after = encoded[2][:max_length]
        counts = len(direct) - max(len(encoded[3]), 1), len(after) - len(encoded[0])
        good = max_length - length > 0 and min(counts) > 0
        if name == "cherry":
            good = good and length + counts[0] <= max_length
        outcomes.add(texts.why.get(e))
        assert good == (e not in texts.why), e
        kept = [texts.tokens.id[slice(*texts.tokens.ptr[n : n + 2])].tolist() for n in (2 * e, 2 * e + 1)]
        assert kept == ([direct, after] if good else [[], []])
    if max_length == 160:
        assert len(outcomes) > 2


def test_where_4_tokens_stand_before_an_answer_alone_a_cut_one_stays():
    """As with Llama: alone it is cut to exactly the tokens that fit after the prompt. With 3 it has one more."""
    prompt, answer = list(range(10)), list(range(100, 200))
    cut = FORMS["cherry"].pair(prompt, [0, 1, 2, 3, *answer], prompt + answer, [0, 1, 2, 3], 50)
    assert cut == Pair([0, 1, 2, 3, *answer[:40]], prompt + answer[:40], 4, 10, None)
    longer = FORMS["cherry"].pair(prompt, [0, 1, 2, *answer], prompt + answer, [0, 1, 2], 50)
    assert longer.why == "prompt and answer are longer than max_length"
    whole = FORMS["superfiltering"].pair(prompt, answer, prompt + answer, [], 50)
    assert whole == Pair(answer[:41], prompt + answer[:40], 1, 10, None)


@pytest.fixture(scope="module", params=NAMES)
def of_form(request, golden_rows, smollm) -> tuple[str, PairTokens, np.ndarray]:
    """A form, its texts, and their mean losses by the real SmolLM2."""
    name, (exchanges, _) = request.param, golden_rows
    texts = pair_tokens(smollm.tokenizer.encode, FORMS[name], exchanges, MAX_LENGTH[name])
    plan = plan_batches(texts.tokens.length, max_length=MAX_LENGTH[name], batch_tokens=1024)
    loss_Nx1 = np.full((len(texts.first), 1), np.nan)
    for batch, found in mean_losses(smollm.load(), texts.tokens, texts.first, plan):
        loss_Nx1[batch.text] = found
    return name, texts, loss_Nx1.reshape(-1, 2)


@pytest.mark.slow
def test_losses_scores_and_what_is_kept_are_the_reference_s(of_form, golden_rows, golden):
    """Losses of size 1 to 12 after 30 layers of float32, in torch's order of summation and in this one: 4e-5 is seen.

    Ratios: 1.3e-5 of their size is seen; the perplexities' is an exponential, which doubles nothing but adds both
    losses' errors.
    """
    name, texts, losses = of_form
    scores = np.full(len(losses), np.nan)
    for e, record in enumerate(golden_rows[1]):
        stored = of(name, record)
        if e in texts.why:
            continue
        np.testing.assert_allclose(losses[e], [stored["alone"], stored["after"]], atol=1e-3)
        scores[e] = FORMS[name].ratio(losses[e, 1], losses[e, 0])
        np.testing.assert_allclose(scores[e], stored["ifd_loss_ratio" if name == "cherry" else "ifd_ppl"], rtol=1e-3)
    selections = json.loads((golden / "ifd/selections.json").read_text())
    kept = [e for e, score in enumerate(scores.tolist()) if FORMS[name].selects(score)]
    dropped = {e for e in range(len(scores)) if e not in texts.why and e not in kept}
    assert dropped == ({0, 5, 9} if name == "cherry" else set())
    best = sorted(kept, key=lambda e: -scores[e])
    if name == "cherry":  # its files hold the rows in their order
        assert {n: sorted(best[:n]) for n in (5, 10)} == {n: selections[f"cherry_data_by_IFD_n{n}"] for n in (5, 10)}
    else:
        assert best[:10] == selections["superfiltering_select_rate0.0002_n10"]
        assert best == selections["superfiltering_select_rate0.001_n52"]
    assert selected(scores, 10) == best[:10], "mig-jax select sampler=ifd"


def selected(scores: np.ndarray, n: int) -> list[int]:
    """What ``mig-jax select sampler=ifd`` takes of rows with these scores."""
    from mig_jax.encode import Encoded
    from mig_jax.labels.label_graph import Propagation
    from mig_jax.objective import make_phi
    from mig_jax.samplers import SamplingTask
    from mig_jax.samplers.configured import sampler_options

    count = len(scores)
    encoded = Encoded(np.arange(count), np.arange(count + 1), np.zeros(count, np.int32), np.ones(count), ("a",), {})
    graph = Propagation(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1))
    options: SamplerOptions = sampler_options("ifd", {})
    task = SamplingTask(encoded, graph, make_phi(), options, ranking=scores, seed=0)
    return find_sampler("ifd").sample(task, n).points.tolist()


def tiny(llama: Path, name: str = "cherry", max_length: int = 900, **changes: Any) -> Ifd.Options:
    settings = {"name": name, "model": model_config(llama), "max_length": max_length, "turns": "mean"}
    return Ifd.Options(**settings | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=NAMES)
def awkward(request, llama, tmp_path_factory) -> tuple[str, dict[str, Any], Ran]:
    """A form and what it says of rows of every kind."""
    folder = tmp_path_factory.mktemp("awkward")
    ran = run(Ifd, tiny(llama, request.param), inputs_of(folder, list(cases.AWKWARD.values())))
    return request.param, dict(zip(kinds(), ran.annotations, strict=True)), ran


def losses_by_hand(llama: Path, name: str, instruction: str, output: str) -> tuple[float, float]:
    """(alone, after the instruction) of a tokenizer that makes a token of each byte and puts <s> in front."""
    model = load_language_model(ModelSpec(name="tiny", path=llama))
    before = "### Response:" if name == "cherry" else ""
    exchange = Exchange(instruction, "", output)
    found = []
    for head in (before, FORMS[name].prompt(exchange)):
        [ids] = model.tokenizer.encode([head + output])
        count = len(output.encode())
        assert len(ids) == 1 + len(head.encode()) + count
        found.append(-token_logprobs(model, [ids])[-count:].astype(np.float64).mean())
    return found[0], found[1]


def test_the_score_is_the_formula_s(awkward, llama):
    """float32 in other batches: 1e-5 in losses of size 5, twice that in their ratio."""
    name, said, _ = awkward
    scores = []
    for instruction, output in (("law?", "yes"), ("chess?\nor music?", "no\nmusic")):
        alone, after = losses_by_hand(llama, name, instruction, output)
        scores.append(after / alone if name == "cherry" else math.exp(after) / math.exp(alone))
    assert abs(scores[0] - scores[1]) > 1e-3
    values = said["several turns"].values
    assert values.keys() == {VERSION, SCORE} and values[VERSION] == name
    np.testing.assert_allclose(values[SCORE], np.mean(scores), rtol=1e-4)
    assert said["several turns"].refused is None, "the last turn waits for its answer"


def test_rows_of_every_kind_are_scored_or_refused_by_name(awkward):
    name, said, ran = awkward
    nothing_asked = "no user turn"
    assert {kind: one.refused for kind, one in said.items() if one.refused is not None} == {
        "empty turns": "the answer is empty",
        "a long turn": "the prompt fills max_length",
        "a system's turn alone": nothing_asked,
        "an assistant's turn alone": nothing_asked,
        "no answer": "no answered turn",
        "annotated before": "the answer is empty",
        "turns of no dialog": "no dialog",
        "no turns at all": "no dialog",
    }
    for one in said.values():
        assert bool(one.values) == (one.refused is None)
        if one.values:
            assert 0 < one.values[SCORE] < math.inf
    assert ran.facts["exchanges"] == 8
    assert ran.facts["exchanges_without_a_score"] == {"the answer is empty": 2, "the prompt fills max_length": 1}
    assert ran.jobs[0].notes == (
        "ifd: 3 of 8 exchanges have no score (2 the answer is empty, 1 the prompt fills max_length)",
    )
    kept = [FORMS[name].selects(one.values[SCORE]) for one in said.values() if one.values]
    assert ran.facts["rows_that_its_selection_keeps"] == sum(kept)
    assert ran.facts["rows_that_it_drops"] == len(kept) - sum(kept)


def test_half_a_surrogate_is_replaced(llama):
    found = find_language_model(ModelSpec(name="tiny", path=llama))
    exchanges = [Exchange("sad \ud83d face", "", "\udc00 yes"), Exchange("law?", "", "yes")]
    texts = pair_tokens(found.tokenizer.encode, FORMS["cherry"], exchanges, 900)
    assert texts.why == {}
    assert (texts.tokens.length > 0).all()


def test_both_texts_of_all_exchanges_share_batches(awkward):
    """One pass; every text that is run once, none that is not scored."""
    _, _, ran = awkward
    [job] = ran.jobs
    run_texts = np.concatenate([batch.text for batch in job.plan])
    assert sorted(run_texts.tolist()) == np.flatnonzero(job.cost > 0).tolist()
    assert any(len(set((batch.text % 2).tolist())) == 2 for batch in job.plan)
    assert np.isnan(ran.results[0][job.cost == 0]).all()
    assert np.isfinite(ran.results[0][job.cost > 0]).all()


def test_the_mean_is_over_scored_turns_and_first_is_the_first(llama, tmp_path):
    turns = [("user", "law?"), ("assistant", "yes"), ("user", "chess?"), ("assistant", "")]
    turns += [("user", "music?"), ("assistant", "so it is")]
    rows = [cases.raw(0, *turns), cases.raw(1, *turns[:2]), cases.raw(2, *turns[4:]), cases.raw(3, *turns[2:])]
    rows.append(cases.raw(4, *turns[2:4], *turns[2:4]))
    mean = run(Ifd, tiny(llama), inputs_of(tmp_path / "mean", rows))
    first = run(Ifd, tiny(llama, turns="first"), inputs_of(tmp_path / "first", rows))
    one, other = (mean.annotations[n].values[SCORE] for n in (1, 2))
    np.testing.assert_allclose(mean.annotations[0].values[SCORE], (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(mean.annotations[3].values[SCORE], other, rtol=1e-5)
    np.testing.assert_allclose(first.annotations[0].values[SCORE], one, rtol=1e-5)
    assert [annotation.refused for annotation in first.annotations[3:]] == ["the answer is empty"] * 2
    assert mean.annotations[4].refused == "the answer is empty: the first of 2 turns"
    assert mean.facts["exchanges_without_a_score"] == {"the answer is empty": 4}


def test_the_separate_input_of_a_layout_has_its_place(llama, tmp_path):
    """In Alpaca's layout; of one that joins both, the row reads otherwise."""
    rows = [{"instruction": "add", "input": "1 2", "output": "3"}, {"instruction": "add\n1 2", "output": "3"}]
    ran = run(Ifd, tiny(llama), inputs_of(tmp_path, rows))
    assert ran.facts["exchanges"] == 2
    one, other = (annotation.values[SCORE] for annotation in ran.annotations)
    assert abs(one - other) > 1e-4
    prompt = FORMS["cherry"].prompt(Exchange("add", "1 2", "3"))
    assert prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nadd\n\n### Input:\n1 2\n\n"
        "### Response:"
    )
    assert FORMS["superfiltering"].prompt(Exchange("add", "1 2", "3")) == "add\n1 2\n"
    assert FORMS["superfiltering"].prompt(Exchange("{a}", "", "3")) == "{a}\n"


def test_what_is_too_long_for_the_model_is_said_before_it_is_read(llama, tmp_path):
    inputs = inputs_of(tmp_path, [cases.raw(0)])
    with pytest.raises(UserError, match=r"ifd\.max_length=2000: model tiny takes at most 1024 tokens"):
        Ifd(tiny(llama, max_length=2000), inputs)


def test_the_weights_are_read_when_the_first_batch_is_asked_for(llama, tmp_path, monkeypatch):
    from mig_jax.models.inference import language_model

    loads = []
    load_weights = language_model.load_weights
    monkeypatch.setattr(language_model, "load_weights", lambda *a, **k: loads.append(a) or load_weights(*a, **k))
    [job] = Ifd(tiny(llama), inputs_of(tmp_path, [cases.raw(i) for i in range(6)], batch_tokens=64)).jobs
    job.prepare()
    assert (len(loads), len(job.plan) > 2) == (0, True)
    assert (list(job.results(iter(()))), len(loads)) == ([], 0)
    for batch in job.plan[:2]:
        list(job.results([batch]))
    assert len(loads) == 1
    job.release()
    [(_, again)], digest = list(job.results(job.plan[:1])), job.plan_digest()
    assert len(loads) == 2 and np.isfinite(again).all(), "a released job can compute again"
    job.prepare()
    assert job.plan_digest() == digest


def test_other_batches_give_the_same_to_rounding(llama, tmp_path):
    rows = [cases.raw(i) for i in range(12)]
    one, other = (run(Ifd, tiny(llama), inputs_of(tmp_path / str(n), rows, n)) for n in (512, 4096))
    np.testing.assert_allclose(*(ran.results[0] for ran in (one, other)), atol=1e-4)
    assert len(one.jobs[0].plan) > len(other.jobs[0].plan)


def test_a_pool_without_answers(llama, tmp_path):
    rows = [cases.AWKWARD[kind] for kind in ("no answer", "a system's turn alone")]
    ran = run(Ifd, tiny(llama), inputs_of(tmp_path, rows))
    assert ran.annotations == [Annotation({}, "no answered turn"), Annotation({}, "no user turn")]
    assert all(not job.plan and not job.notes for job in ran.jobs)
