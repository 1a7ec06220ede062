"""The settings struct of every command."""

from mig_jax.commands.annotate.config import AnnotateConfig
from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.generate.config import GenerateConfig
from mig_jax.commands.report.config import ReportConfig
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.vocabulary.config import VocabularyConfig
from mig_jax.config.struct import Struct

COMMANDS: dict[str, type[Struct]] = {
    "select": SelectConfig,
    "embed": EmbedConfig,
    "annotate": AnnotateConfig,
    "vocabulary": VocabularyConfig,
    "generate": GenerateConfig,
    "report": ReportConfig,
}
