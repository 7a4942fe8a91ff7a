"""clickintent: raw web clickstream in; session embeddings and interpretable intent labels out.

    config = load_config("clickintent.toml")
    run(config)                                   # every stage, from raw exports to the report

    encoder = SessionEncoder().fit(sessions)      # sessions: an Arrow table, see clickintent.schema
    vectors = encoder.embed(sessions)             # (n, 64) float32

The names in ``__all__`` are the public API; everything else may change.
"""

from clickintent._version import __version__
from clickintent.config import Config, EncoderConfig, StudentConfig, load_config
from clickintent.encoder import SessionEncoder, visitor_embeddings, visitor_history
from clickintent.errors import (
    ArtifactError,
    ClickintentError,
    ConfigError,
    DataError,
    EmptyInputError,
    LanguageModelError,
    MissingColumnsError,
    MissingDependencyError,
    WorkspaceError,
)
from clickintent.events import identities, inspect, link_as_of
from clickintent.pipeline import (
    demo,
    distill,
    draft_taxonomy,
    embed,
    evaluate,
    explore,
    forget,
    ingest,
    label,
    metrics,
    plan,
    pretrain,
    run,
    simulate,
    write_report,
)
from clickintent.taxonomy import IntentLabeler, Taxonomy

__all__ = [
    "ArtifactError",
    "ClickintentError",
    "Config",
    "ConfigError",
    "DataError",
    "EmptyInputError",
    "EncoderConfig",
    "IntentLabeler",
    "LanguageModelError",
    "MissingColumnsError",
    "MissingDependencyError",
    "SessionEncoder",
    "StudentConfig",
    "Taxonomy",
    "WorkspaceError",
    "__version__",
    "demo",
    "distill",
    "draft_taxonomy",
    "embed",
    "evaluate",
    "explore",
    "forget",
    "identities",
    "ingest",
    "inspect",
    "label",
    "link_as_of",
    "load_config",
    "metrics",
    "plan",
    "pretrain",
    "run",
    "simulate",
    "visitor_embeddings",
    "visitor_history",
    "write_report",
]
