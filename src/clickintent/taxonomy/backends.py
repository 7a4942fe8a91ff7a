"""From the configuration to a language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickintent.config import Config
from clickintent.errors import LanguageModelError
from clickintent.progress import say
from clickintent.taxonomy.batch_files import BatchModel
from clickintent.taxonomy.llm import LanguageModel, RecordedModel, UnansweredError
from clickintent.taxonomy.openai_model import OpenAIModel
from clickintent.taxonomy.prompts import check


@contextmanager
def open_model(config: Config, cache: Path) -> Iterator[LanguageModel]:
    """The language model of ``config.llm.backend``, which is not ``keywords``.

    Args:
        cache: folder for its answers. Batch files are in the folder ``llm`` of the workspace.

    Raises:
        ConfigError: if a prompt file cannot be used.
        AnswersNeededError: on leaving, if requests were written that have to be answered first.
        BudgetError: if a cap would be passed.
        LanguageModelError: if the model cannot be used, or a replay has no recorded answer.
    """
    check(config.llm.prompts)
    if config.llm.backend == "batch":
        with BatchModel(config.llm, cache, config.workspace / "llm") as batch:
            try:
                yield batch
            except UnansweredError:
                pass  # ``finish`` says it better
            except LanguageModelError:
                say(f"  {batch.report()}")
                raise
            batch.finish()
    elif config.llm.backend == "replay":
        with RecordedModel(config.llm, cache) as recorded:
            try:
                yield recorded
            except UnansweredError as error:
                raise LanguageModelError(
                    f'llm.backend = "replay" never asks, and {len(recorded.open):,} requests have no '
                    f"recorded answer in {cache}. The sessions, the taxonomy, the prompts, llm.model or "
                    "llm.base_url have changed since, or the run was not finished."
                ) from error
    else:
        with OpenAIModel(config.llm, cache) as model:
            yield model
