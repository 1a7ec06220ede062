"""The settings struct of every command."""

from mig_jax.annotate.config import AnnotateConfig
from mig_jax.config.struct import Struct
from mig_jax.embed.config import EmbedConfig
from mig_jax.generate.config import GenerateConfig
from mig_jax.report.config import ReportConfig
from mig_jax.select.config import SelectConfig
from mig_jax.vocabulary.config import VocabularyConfig

COMMANDS: dict[str, type[Struct]] = {
    "select": SelectConfig,
    "embed": EmbedConfig,
    "annotate": AnnotateConfig,
    "vocabulary": VocabularyConfig,
    "generate": GenerateConfig,
    "report": ReportConfig,
}
