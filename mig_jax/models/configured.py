"""From ``embedder.*``, ``model.*`` and ``mesh.*`` to what the models take."""

from pathlib import Path
from typing import Any

import jax
import msgspec
from jax.sharding import Mesh

from mig_jax.config.mesh import MeshConfig
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec, ModelSpec, find_place
from mig_jax.models.checkpoints.sentence_folder import folder_says
from mig_jax.models.config import EmbedderConfig, ModelConfig

_FOLDER_KEYS = ("pooling", "max_length", "append_eos")  # null: as the checkpoint's folder says


_OF_OTHERS = ("threshold", "tag_threshold")  # what it is to the graph and to the tags, which the embedder need not know


def spec_of(config: EmbedderConfig) -> EmbedderSpec:
    """The embedder as mig_jax.models knows it. A folder of one's own is not held to the published checksum.

    Raises:
      UserError: something is left to the checkpoint's folder, which cannot be found; see ``folder_says``.
    """
    plain: dict[str, Any] = {
        k: v for k, v in msgspec.structs.asdict(config).items() if k not in (*_OF_OTHERS, *_left_open(config))
    }
    said = _folder_of(config)
    usual: dict[str, Any] = {"pooling": "last"} if said.get("group") == "decoder" and config.pooling is None else {}
    return EmbedderSpec(**plain | _own(config) | usual | folder_decides(config))


def folder_decides(config: EmbedderConfig) -> dict[str, Any]:
    """What the configuration leaves open of pooling, max_length and append_eos and the checkpoint's folder says."""
    said = {key: value for key, value in _folder_of(config).items() if key in _left_open(config)}
    return {key: value in (True, "true") if key == "append_eos" else value for key, value in said.items()}


def _left_open(config: EmbedderConfig) -> list[str]:
    return [key for key in _FOLDER_KEYS if getattr(config, key) is None]


def _folder_of(config: EmbedderConfig) -> dict[str, Any]:
    """What ``folder_says`` says, where it is asked at all: the checkpoint may have to be fetched for it."""
    if not _left_open(config):
        return {}
    where = {key: getattr(config, key) for key in ("name", "wheel", "hub", "revision")}
    return folder_says(find_place(EmbedderSpec(**where | _own(config)))[0])


def _own(config: EmbedderConfig | ModelConfig) -> dict[str, Any]:
    return {} if config.path is None else {"path": Path(config.path), "sha256": None}


def model_spec_of(config: ModelConfig, place: str = "model") -> ModelSpec:
    """The language model as mig_jax.models knows it; a checkpoint of one's own as above.

    Args:
      place: see ``ModelSpec``.
    """
    return ModelSpec(**msgspec.structs.asdict(config) | _own(config), place=place)


def models_mesh(config: MeshConfig, *, alone: bool) -> Mesh | None:
    """The devices of this process that run the models; None: one, the default.

    Args:
      alone: mesh.data=auto means one device, so that the numbers do not depend on the machine; else all of them.
    """
    if config.data == "auto" and config.fsdp == config.tensor == 1 and (alone or jax.local_device_count() == 1):
        return None
    from mig_jax.models.networks.sharding import model_mesh  # Flax, as above

    return model_mesh(None if config.data == "auto" else config.data, config.fsdp, config.tensor)
