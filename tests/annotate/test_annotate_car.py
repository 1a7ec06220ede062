"""CaR's score: its own modules' on stored ids, and rows of every kind on a tiny scorer."""

import json
from pathlib import Path

import annotate_cases as cases
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scorer_cases import UNANSWERED, Ran, inputs_of, kinds, model_config, run
from test_models_car_scorer import numpy_score, tiny_head
from tiny_encoders import tiny_config, tiny_weights
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mig_jax.commands.annotate.annotator import Annotation
from mig_jax.commands.annotate.car import SCORES, Car, text_of
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import ModelSpec
from mig_jax.models.inference.car_model import find_car_scorer
from mig_jax.models.inference.language_model import as_tokens
from mig_jax.models.networks.sharding import model_mesh
from mig_jax.pool.exchanges import Exchange

CLOSE = 1e-5  # float32 after two or three layers, scores of size 1
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def letter_tokenizer(folder: Path) -> int:
    """A token a byte, <s> in front and </s> behind, as XLM-R has it; the number of its tokens."""
    words = {word: i for i, word in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, ends)  # type: ignore
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(words)


class Scorer:
    """A tiny one: its folder and what is in it."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        vocab_size = letter_tokenizer(folder)
        self.folder, self.tokenizer = folder, Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.config = tiny_config(
            "xlm-roberta", hidden_sizes=[10, 6], vocab_size=vocab_size, max_position_embeddings=130
        )
        self.tensors, self.head = tiny_weights(self.config, seed=14), tiny_head(seed=15)
        self.write()

    def write(self) -> None:
        encoder = {"encoder.model." + name: value for name, value in self.tensors.items()}
        save_file(encoder | self.head, self.folder / "model.safetensors")
        (self.folder / "config.json").write_text(json.dumps(self.config))

    def score(self, text: str) -> float:
        """By the paper's formula, in NumPy."""
        ids = self.tokenizer.encode(text).ids
        return numpy_score(self.config, self.tensors, self.head, ids if len(ids) <= 128 else [*ids[:127], 2])


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> Scorer:
    return Scorer(tmp_path_factory.mktemp("models") / "scorer")


@pytest.mark.parametrize("batch_tokens", [64, 2048])
def test_the_scores_are_the_reference_s(batch_tokens: int, golden: Path, tmp_path):
    """CaR's own modules on torch, on 20 texts whose ids are stored; as batches of one, and of many."""
    given = golden / "tiny/xlm-roberta"
    stored = np.load(given / "outputs.npz")
    folder = tmp_path / "scorer"
    folder.mkdir()
    letter_tokenizer(folder)
    config = json.loads((given / "config.json").read_text()) | {"hidden_sizes": [48, 24]}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        load_file(given / "model.safetensors") | load_file(given / "iqs_head.safetensors"), folder / "model.safetensors"
    )
    found = find_car_scorer(ModelSpec(name="tiny", path=folder, architecture="xlm-roberta"))
    tokens = as_tokens([ids[mask > 0].tolist() for ids, mask in zip(stored["ids"], stored["mask"], strict=True)])
    found.check(tokens)
    plan = found.plan(tokens.length, batch_tokens)
    score_N = np.full(len(tokens.length), np.nan, np.float32)
    for batch, score_nx1 in found.load().run(tokens, plan):
        score_N[batch.text] = score_nx1[:, 0]
    np.testing.assert_allclose(score_N, stored["iqs_score"], atol=CLOSE)
    assert len(plan) > 10 if batch_tokens == 64 else len(plan) < 3


def test_a_mesh_gives_the_same(scorer):
    """Rows over 2 x 2 devices, heads over 2."""
    spec = ModelSpec(name="tiny", path=scorer.folder)
    texts = [f"text {n} " * n for n in range(7)]
    scores = []
    for mesh in (None, model_mesh(2, 2, 1)):
        found = find_car_scorer(spec, mesh=mesh)
        tokens = found.tokenizer(texts)
        [(batch, score_nx1)] = found.load().run(tokens, found.plan(tokens.length, 4096))
        scores.append(score_nx1[np.argsort(batch.text), 0])
    np.testing.assert_allclose(*scores, atol=CLOSE)
    np.testing.assert_allclose(scores[0], [scorer.score(text) for text in texts], atol=CLOSE)


def test_few_programs(scorer):
    """At most two shapes a width and one more, whatever the texts."""
    found = find_car_scorer(ModelSpec(name="tiny", path=scorer.folder))
    model, count = found.load(), []
    jax.clear_caches()

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] == "jit(_score)":
            count.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        for texts in (["a" * 40] * 9, ["b" * 45] * 12, ["c" * 60] * 24):
            tokens = found.tokenizer(texts)
            assert len(list(model.run(tokens, found.plan(tokens.length, 256)))) >= 3
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert len(count) <= 2


@pytest.fixture(scope="module")
def awkward(scorer, tmp_path_factory) -> tuple[dict[str, Annotation], Ran]:
    """The annotations of rows of every kind."""
    inputs = inputs_of(tmp_path_factory.mktemp("awkward"), list(cases.AWKWARD.values()))
    ran = run(Car, Car.Options(model=model_config(scorer.folder)), inputs)
    return dict(zip(kinds(), ran.annotations, strict=True)), ran


def test_each_answered_turn_has_the_formula_s_score(awkward, scorer):
    said, _ = awkward
    texts = ["Instruction: law? Input:  Response: yes", "Instruction: chess?\nor music? Input:  Response: no\nmusic"]
    scores = [scorer.score(text) for text in texts]
    assert abs(scores[0] - scores[1]) > 0.01
    np.testing.assert_allclose(said["several turns"].values[SCORES], scores, atol=CLOSE)
    assert text_of(Exchange("i", "x", "o")) == "Instruction: i Input: x Response: o"


def test_rows_of_every_kind_are_scored_or_refused_by_name(awkward, scorer):
    said, ran = awkward
    assert {kind: one.refused for kind, one in said.items() if one.refused is not None} == UNANSWERED
    for one in said.values():
        assert bool(one.values) == (one.refused is None)
        assert np.isfinite(one.values.get(SCORES, [])).all()
    long = cases.AWKWARD["a long turn"]["dialogs"][0]["content"]
    np.testing.assert_allclose(
        said["a long turn"].values[SCORES], [scorer.score(f"Instruction: {long} Input: ")], atol=CLOSE
    )
    cut = [note for note in ran.jobs[0].notes if "of 8 turns are longer than max_length=128 tokens" in note]
    assert len(cut) == 1
    assert ran.facts["turns"] == 8
    assert ran.facts["turns_cut"] == int(cut[0].split()[1]) >= 2
    mean = np.mean([score for one in said.values() for score in one.values.get(SCORES, [])])
    assert ran.facts["mean"] == pytest.approx(mean, abs=1e-4)


def test_texts_of_no_token_are_in_no_batch_and_a_pool_without_answers_needs_no_weights(scorer, tmp_path):
    found = find_car_scorer(ModelSpec(name="tiny", path=scorer.folder))
    plan = found.plan(np.array([0, 5, 0, 3]), 64)
    assert [n for batch in plan for n in batch.text.tolist()] == [1, 3]
    (scorer.folder / "model.safetensors").rename(tmp_path / "aside")
    save_file({"x": np.zeros(1, np.float32)}, scorer.folder / "model.safetensors")
    try:
        ran = run(
            Car, Car.Options(model=model_config(scorer.folder)), inputs_of(tmp_path, [cases.AWKWARD["no answer"]])
        )
    finally:
        (tmp_path / "aside").replace(scorer.folder / "model.safetensors")
    assert ran.annotations == [Annotation({}, "no answered turn")]
    assert ran.facts["mean"] == 0


def test_a_separate_input_has_its_place(scorer, tmp_path):
    rows = [{"instruction": "add", "input": "1 2", "output": "3"}]
    ran = run(Car, Car.Options(model=model_config(scorer.folder)), inputs_of(tmp_path, rows))
    expected = scorer.score("Instruction: add Input: 1 2 Response: 3")
    np.testing.assert_allclose(ran.annotations[0].values[SCORES], [expected], atol=CLOSE)


def test_a_turn_without_a_number_refuses_its_row_and_no_other(scorer, tmp_path):
    turns = [("user", "law?"), ("assistant", "yes"), ("user", "chess?"), ("assistant", "no")]
    inputs = inputs_of(tmp_path, [cases.raw(0, *turns), cases.raw(1, *turns[:2])])
    annotator = Car(Car.Options(model=model_config(scorer.folder)), inputs)
    annotations = list(annotator.annotate((np.array([[1.0], [np.nan], [2.0]], np.float32),)))
    assert annotations == [Annotation({}, "the score is not finite: turn 2"), Annotation({SCORES: [2.0]})]
    assert {key: annotator.facts()[key] for key in ("turns", "turns_not_finite", "mean")} == {
        "turns": 3, "turns_not_finite": 1, "mean": 2.0,
    }  # fmt: skip


def test_weights_that_hold_nan_are_found(tmp_path):
    broken = Scorer(tmp_path / "broken")
    broken.head["estimator.ff.6.bias"][:] = np.nan
    broken.write()
    inputs = inputs_of(tmp_path, [cases.raw(i) for i in range(40)])
    with pytest.raises(UserError, match="model tiny: scores are not finite, so its weights hold NaN or infinity"):
        run(Car, Car.Options(model=model_config(broken.folder)), inputs)


def test_without_a_folder_it_says_how_to_make_one(tmp_path):
    inputs = inputs_of(tmp_path, [cases.raw(0)])
    nowhere = model_config(tmp_path, path=None, name="car")
    with pytest.raises(
        UserError, match=r"no weights for model car \(car\.model\.path is not set\).* pickles .* hparams\.yaml"
    ) as told:
        Car(Car.Options(model=nowhere), inputs)
    assert "\n" not in str(told.value)


def test_what_is_no_scorer_is_refused(scorer, llama, tmp_path):
    inputs = inputs_of(tmp_path, [cases.raw(0)])
    with pytest.raises(UserError, match="architecture 'llama'; CaR's scorer is an xlm-roberta with a head"):
        Car(Car.Options(model=model_config(llama)), inputs)
    with pytest.raises(UserError, match=r"model\.max_length=300: .* has 128 positions"):
        Car(Car.Options(model=model_config(scorer.folder, max_length=300)), inputs)
    found = find_car_scorer(ModelSpec(name="tiny", path=scorer.folder))
    with pytest.raises(UserError, match=r"gives id 999, its model has \d+ words"):
        found.check(as_tokens([[4, 999]]))
