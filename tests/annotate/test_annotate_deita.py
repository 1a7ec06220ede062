"""DEITA's two scores against those of its own code, their formula, and rows of every kind on tiny models."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import annotate_cases as cases
import numpy as np
import pytest
from scorer_cases import UNANSWERED, Ran, inputs_of, kinds, model_config, run
from tokenizers import AddedToken, Tokenizer, decoders, models

from mig_jax.commands.annotate.annotator import Annotation
from mig_jax.commands.annotate.deita import (
    COMPLEXITY,
    PROMPTS,
    QUALITY,
    ROUNDS,
    Deita,
    digit_ids,
    expected_digit,
)
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec
from mig_jax.models.inference.language_model import LanguageModel, as_tokens, find_language_model
from mig_jax.models.inference.next_token import next_logits
from mig_jax.models.inference.packing import plan_batches
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, load_text_tokenizer

LLAMA_DIGITS = [29896, 29906, 29941, 29946, 29945, 29953]


@pytest.mark.parametrize("of", ["complexity", "quality"])
def test_the_scores_are_the_reference_s(of: str, golden: Path, tmp_path):
    """Its own code on a tiny Llama, on torch; the ids of its prompts are stored, so any tokenizer will do here.

    Logits of size 1 after three layers of float32: 1e-6 is seen, and in the scores 5e-7.
    """
    folder = tmp_path / "scorer"
    shutil.copytree(golden / "deita_scorer", folder)
    cases.byte_tokenizer(folder)
    with gzip.open(golden / "deita_scorer/scores.json.gz", "rt") as file:
        rows = json.load(file)
    model = find_language_model(ModelSpec(name="tiny", path=folder)).load()
    tokens = as_tokens([row[f"{of}_ids"] for row in rows])
    model.check(tokens)
    logit_Nx6 = np.full((len(rows), 6), np.nan, np.float32)
    plan = plan_batches(tokens.length, max_length=model.max_length, batch_tokens=1024)
    for batch, found in next_logits(model, tokens, plan, LLAMA_DIGITS):
        logit_Nx6[batch.text] = found
    np.testing.assert_allclose(logit_Nx6, [row[f"{of}_digit_logits"] for row in rows], atol=1e-5)
    np.testing.assert_allclose(expected_digit(logit_Nx6), [row[of] for row in rows], atol=1e-5)
    stored = np.load(golden / "deita_scorer/first_logits.npz")["logits"]
    assert {stored.shape[1]} == {model.config.vocab_size}


def test_the_score_is_the_expected_digit():
    """By hand: equal logits give the mean of 1 to 6; one far above the rest gives its digit; float32 to float64."""
    assert expected_digit(np.zeros((1, 6), np.float32)).tolist() == [3.5]
    sharp = np.eye(6, dtype=np.float32) * 900
    np.testing.assert_allclose(expected_digit(sharp), np.arange(1, 7), atol=1e-12)
    z = np.array([0.5, -1.0, 2.0, 0.25, 0.0, 1.0], np.float32)
    shares = [float(np.exp(float(one))) for one in z]
    by_hand = sum(d * share for d, share in enumerate(shares, 1)) / sum(shares)
    found = expected_digit(np.stack([z, z + 80]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_hand, atol=1e-12)
    for wrong in (np.nan, np.inf, -np.inf):
        assert np.isnan(expected_digit(np.array([[1, 2, wrong, 4, 5, 6]], np.float32))).all()


def test_the_prompts_are_the_reference_s():
    """Byte for byte, the spaces before line breaks and at the ends included.

    The stored ids are what the Llama-2 tokenizer makes of these on the golden's rows, which was checked once with the
    tokenizer.json in PyPI's wordllama 0.4.0.post1.
    """
    assert PROMPTS == {
        "complexity": "You are a helpful assistant. Please identify the complexity score of the following user query. "
        "\n##Query: {instruction}  \n##Complexity: ",
        "quality": "You are a helpful assistant. Please identify the quality score of the Response corresponding to "
        "the Question. \n #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: ",
    }


def tiny(llama: Path, **changes: Any) -> Deita.Options:
    return Deita.Options(complexity=model_config(llama, **changes), quality=model_config(llama, **changes))


@pytest.fixture(scope="module")
def awkward(llama, tmp_path_factory) -> tuple[dict[str, Annotation], Ran]:
    """The annotations of rows of every kind."""
    ran = run(Deita, tiny(llama), inputs_of(tmp_path_factory.mktemp("awkward"), list(cases.AWKWARD.values())))
    return dict(zip(kinds(), ran.annotations, strict=True)), ran


def by_hand(model: LanguageModel, prompt: str) -> float:
    """The score of one prompt, from the logits at its end."""
    [ids] = model.tokenizer.encode([prompt])
    assert len(ids) == 1 + len(prompt.encode()), "a token a byte, and <s>"
    tokens = as_tokens([ids])
    digits = [model.tokenizer.encode_plain([digit])[0][0] for digit in "123456"]
    [(_, found)] = next_logits(model, tokens, plan_batches(tokens.length, max_length=1024, batch_tokens=32), digits)
    shares = np.exp(found[0].astype(np.float64))
    return float(shares @ np.arange(1, 7) / shares.sum())


def test_each_answered_turn_has_both_scores(awkward, llama):
    said, _ = awkward
    values, model = said["several turns"].values, find_language_model(ModelSpec(name="tiny", path=llama)).load()
    turns = [("law?", "yes"), ("chess?\nor music?", "no\nmusic")]
    complexity = [by_hand(model, PROMPTS["complexity"].replace("{instruction}", asked)) for asked, _ in turns]
    quality = [
        by_hand(model, PROMPTS["quality"].replace("{instruction}", asked).replace("{output}", answer))
        for asked, answer in turns
    ]
    np.testing.assert_allclose(values[COMPLEXITY], complexity, atol=1e-5)
    np.testing.assert_allclose(values[QUALITY], quality, atol=1e-5)
    assert values[ROUNDS] == 2, "the third waits for its answer"
    assert np.ptp([*complexity, *quality]) > 0.01


def test_rows_of_every_kind_are_scored_or_refused_by_name(awkward):
    said, ran = awkward
    assert {kind: one.refused for kind, one in said.items() if one.refused is not None} == UNANSWERED
    for one in said.values():
        assert bool(one.values) == (one.refused is None)
        if one.values:
            assert all(1 <= score <= 6 for place in (COMPLEXITY, QUALITY) for score in one.values[place])
            assert len(one.values[COMPLEXITY]) == len(one.values[QUALITY]) == one.values[ROUNDS]
    assert ran.facts["turns"] == 8
    assert ran.facts["turns_not_finite"] == {"complexity": 0, "quality": 0}
    assert all(1 < mean < 6 for mean in ran.facts["mean"].values())


def test_what_is_too_long_is_cut_and_the_prompt_is_not(awkward, llama):
    """100,000 characters: the whole template stands, and either text has half of the room."""
    _, ran = awkward
    assert ran.facts["turns_cut"] == {"complexity": 1, "quality": 1}
    for job, of in zip(ran.jobs, PROMPTS, strict=True):
        note = f"{of}: 1 of 8 turns are longer than max_length=1024 tokens; their texts were cut, the prompt was not"
        assert job.notes == (note,)
        assert job.cost.max() == 1024


def test_a_short_answer_leaves_its_room_to_the_instruction(llama, tmp_path):
    """By the tokens that the model is given: the tail of the prompt, and both texts, as much as fits."""
    rows = [
        cases.raw(0, ("user", "q" * 2000), ("assistant", "short")),
        cases.raw(1, ("user", "law"), ("assistant", "a")),
    ]
    annotator = Deita(tiny(llama, max_length=400), inputs_of(tmp_path, rows))
    seen = []

    def spy(model, tokens, batches, ids):
        seen.append([tokens.id[slice(*tokens.ptr[n : n + 2])] for n in range(2)])
        return iter(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mig_jax.models.inference.next_token.next_logits", spy)
        for job in annotator.jobs:
            job.prepare()
            list(job.results(job.plan))
    decode = load_text_tokenizer(llama).decode
    quality = [decode(ids.tolist()) for ids in seen[1]]
    whole = PROMPTS["quality"].replace("{output}", "short")
    room = 400 - 1 - len(whole) + len("{instruction}")
    assert quality[0] == whole.replace("{instruction}", "q" * room)
    assert quality[1] == PROMPTS["quality"].replace("{instruction}", "law").replace("{output}", "a")
    assert decode(seen[0][0].tolist()).endswith("q  \n##Complexity: ")
    assert len(seen[0][0]) == len(seen[1][0]) == 400


def test_the_separate_input_of_a_layout_follows_the_instruction(llama, tmp_path):
    rows = [
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"instruction": "add\n1 2", "input": "", "output": "3"},
    ]
    ran = run(Deita, tiny(llama), inputs_of(tmp_path, rows))
    one, other = (annotation.values for annotation in ran.annotations)
    for place in (COMPLEXITY, QUALITY):
        np.testing.assert_allclose(one[place], other[place], atol=1e-5)


def test_a_turn_without_a_number_refuses_its_row_and_no_other(llama, tmp_path):
    """Half a list would be read as another row's."""
    turns = [("user", "law?"), ("assistant", "yes"), ("user", "chess?"), ("assistant", "no")]
    annotator = Deita(tiny(llama), inputs_of(tmp_path, [cases.raw(0, *turns), cases.raw(1, *turns[:2])]))
    results = [np.zeros((3, 6), np.float32) for _ in annotator.jobs]
    results[1][1, 3] = np.inf
    first, second = annotator.annotate(tuple(results))
    assert first == Annotation({}, "the logits of the digits are not finite: turn 2's quality")
    assert second == Annotation({COMPLEXITY: [3.5], QUALITY: [3.5], ROUNDS: 1})
    facts = annotator.facts()
    assert facts["turns_not_finite"] == {"complexity": 0, "quality": 1}
    assert facts["mean"] == {"complexity": 3.5, "quality": 3.5}


def words(folder: Path, *vocabulary: str) -> TextTokenizer:
    """A tokenizer of these words: what it does not know is <unk>."""
    folder.mkdir()
    ids = {word: i for i, word in enumerate(["<unk>", *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()  # type: ignore
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_text_tokenizer(folder)


def test_a_digit_without_a_token_of_its_own_is_an_error_and_no_3(tmp_path):
    every = words(tmp_path / "every", *"654321")
    assert digit_ids(every, "m", "tiny") == (6, 5, 4, 3, 2, 1)
    for n, vocabulary in enumerate(("12345", "12345a", "")):
        known = words(tmp_path / str(n), *vocabulary)
        with pytest.raises(UserError, match=r"^m=tiny: its tokenizer \(.*\) has no token of its own for each digit: '"):
            digit_ids(known, "m", "tiny")


def test_a_model_of_another_tokenizer_is_refused(tmp_path):
    folder = cases.tiny_llama(tmp_path / "m", vocab_size=20)
    inputs = inputs_of(tmp_path, [cases.raw(0)])
    with pytest.raises(
        UserError, match=r"deita\.complexity=tiny: its tokenizer gives id \d+ for a digit, its model has 20"
    ):
        Deita(tiny(folder), inputs)


def test_a_pool_without_answers(llama, tmp_path):
    rows = [cases.AWKWARD[kind] for kind in ("no answer", "a system's turn alone")]
    ran = run(Deita, tiny(llama), inputs_of(tmp_path, rows))
    assert ran.annotations == [Annotation({}, "no answered turn"), Annotation({}, "no user turn")]
    assert all(not job.plan and not job.notes for job in ran.jobs)
