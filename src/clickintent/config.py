"""One frozen configuration per stage, read from ``clickintent.toml``.

Relative paths are relative to the file. ``${NAME}`` and ``${NAME:-default}`` in any string are filled
from the environment, so that folders and keys need not stand in the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clickintent.errors import ConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(_Frozen):
    """One raw export: which reader, which files, what its columns are called."""

    reader: str  # table, ga4, ga360, snowplow, segment, adobe, access_log, or one that a package adds
    path: Annotated[
        str, BeforeValidator(str)
    ]  # a file, a folder, a glob, or a URL such as s3://bucket/day=*/
    channel: Literal["web", "app"] = "web"
    name: str = ""  # how the source is called in the tables; the reader's name if empty
    #: Reader ``table``: canonical event column → column in the file. ``visitor_id``, ``ts`` and one of
    #: ``page`` (already a template or a screen name) and ``url`` are required.
    columns: dict[str, str] = {}
    #: Reader ``table``: value for a canonical column that the file lacks, e.g. ``event_type = "page_view"``.
    constants: dict[str, str] = {}
    #: Reader ``table``: how ``ts`` is written.
    ts_unit: Literal["auto", "s", "ms", "us"] = "auto"
    #: Event types, as the source writes them, that are no events here, e.g. ``page_ping``.
    skip_events: tuple[str, ...] = ()
    #: Reader ``segment``: the consent category that counts; none means that all of them must be given.
    consent_category: str = ""
    #: Reader ``adobe``: a folder or archive with ``column_headers.tsv``; none means beside the data file.
    lookups: str = ""
    #: Reader ``adobe``: canonical event column → column of the feed, for what this implementation keeps in
    #: variables of its own, e.g. ``account_id = "post_evar7"``.
    fields: dict[str, str] = {}
    #: Reader ``adobe``: number in ``event_list`` → event type, e.g. ``200 = "application_complete"``.
    event_ids: dict[str, str] = {}

    @property
    def label(self) -> str:
        return self.name or self.reader


class PrivacyConfig(_Frozen):
    """What may be kept of people and URLs. Everything not named here is dropped."""

    #: ``hmac``: visitor and account ids become keyed hashes (HMAC-SHA256, 64 bits). ``plain``: they stay.
    ids: Literal["hmac", "plain"] = "hmac"
    key_env: str = "CLICKINTENT_KEY"  # the environment variable that holds the key, never the key
    #: A page that fewer visitors have seen is generalised to its parent, and a title, text, campaign or
    #: referrer of fewer is dropped. 1 keeps all.
    min_people: Annotated[int, Field(ge=1)] = 5
    #: Page templates that stay as they are written here, e.g. ``/products/{product}/reviews``.
    templates: tuple[str, ...] = ()
    #: What a consent column says of people who agreed; rows that say anything else are refused.
    consent: tuple[str, ...] = ("true", "yes", "1", "y", "t", "granted")
    #: Refuse rows that say nothing about consent, too.
    require_consent: bool = False

    #: Query parameters whose value may stay, as part of the page (``/search?type={value}``).
    allow_query: tuple[str, ...] = ()
    #: Query parameters that hold the visitor's search term; redacted, it becomes the event's ``text``.
    search_query: tuple[str, ...] = ("q", "query", "search")


class SessionsConfig(_Frozen):
    inactivity_minutes: Annotated[float, Field(gt=0)] = 30.0
    #: ``source`` uses the export's own session number instead of the inactivity rule.
    boundary: Literal["inactivity", "source"] = "inactivity"
    #: Which channel's sessions are embedded and labelled.
    channel: Literal["web", "app"] = "web"


class SplitConfig(_Frozen):
    """Where the past ends. Sessions that start before it train, later ones test."""

    at: datetime | date | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3  # used when ``at`` is not given

    @property
    def at_us(self) -> int | None:
        """``at`` in µs since 1970; a time without zone is UTC."""
        if self.at is None:
            return None
        at = self.at if isinstance(self.at, datetime) else datetime(self.at.year, self.at.month, self.at.day)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1_000_000)


class EncoderConfig(_Frozen):
    """The session encoder. Defaults are sized for a CPU."""

    dim: Annotated[int, Field(ge=4)] = 64  # of the session embedding
    width: Annotated[int, Field(ge=8)] = 96
    cell: Literal["gru", "transformer"] = "gru"
    layers: Annotated[int, Field(ge=1)] = 1  # a Transformer wants two
    heads: Annotated[int, Field(ge=1)] = 4  # of a Transformer
    max_events: Annotated[int, Field(ge=2)] = 64  # longer sessions keep their last events
    #: ``none``, ``hashed`` (learned hashed n-grams), or a folder with a sentence-transformers model.
    text: str = "hashed"
    text_dim: Annotated[int, Field(ge=4)] = 32
    text_buckets: Annotated[int, Field(ge=64)] = 8192
    min_page_count: Annotated[int, Field(ge=1)] = 5  # rarer pages are known by their text alone
    epochs: Annotated[int, Field(ge=1)] = 12
    #: Over all epochs, however many there are in the data: 20 million are about an hour on two cores.
    max_sessions: Annotated[int, Field(ge=1)] = 20_000_000
    batch_events: Annotated[int, Field(ge=64)] = 4096  # events in a batch, padding included
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    device: Literal["cpu", "cuda"] = "cpu"  # to train on; cuda trains in bfloat16

    @model_validator(mode="after")
    def _heads_divide_width(self) -> EncoderConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class LlmConfig(_Frozen):
    """Where names and labels come from. ``keywords`` needs no language model and reads like it."""

    #: ``openai`` asks an endpoint, ``batch`` writes files of requests and reads files of answers, ``replay``
    #: takes recorded answers only.
    backend: Literal["keywords", "openai", "batch", "replay"] = "keywords"
    base_url: str | None = None  # any OpenAI-compatible endpoint; the SDK's own default if not given
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key, never the key
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    retries: Annotated[int, Field(ge=0)] = 4
    concurrency: Annotated[int, Field(ge=1)] = 8
    price_per_million_input: Annotated[float, Field(ge=0)] = 0.0
    price_per_million_output: Annotated[float, Field(ge=0)] = 0.0
    #: Caps on all that a workspace ever spends: tokens in and out, and money at the prices above.
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None  # sent, at four characters each
    prompts: Path | None = None  # a folder of files that replace packaged prompts of the same name

    @model_validator(mode="after")
    def _model_is_named(self) -> LlmConfig:
        if self.backend != "keywords" and not self.model:
            raise ValueError(f'backend {self.backend!r} needs llm.model, e.g. model = "gpt-5-mini"')
        return self

    @model_validator(mode="after")
    def _cost_is_known(self) -> LlmConfig:
        if self.max_cost is not None and not (self.price_per_million_input or self.price_per_million_output):
            raise ValueError("max_cost needs llm.price_per_million_input and llm.price_per_million_output")
        return self


class TaxonomyConfig(_Frozen):
    intents: Annotated[int, Field(ge=2)] = 35
    sample: Annotated[int, Field(ge=10)] = 1000  # sessions shown to the LLM while it drafts
    minibatch: Annotated[int, Field(ge=1)] = 50
    #: Drafting ends before the whole sample was shown when so many minibatches in a row changed nothing.
    patience: Annotated[int, Field(ge=1)] = 3
    #: The sample is made smaller until its sessions, as they are told, fit into so many tokens (estimated).
    sample_tokens: Annotated[int, Field(ge=1000)] = 100_000


class LabelsConfig(_Frozen):
    #: Sessions annotated by the LLM (drawn at random, two thirds with a known owner); the keyword
    #: namer costs nothing and labels every session.
    max_sessions: Annotated[int, Field(ge=10)] = 2000
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.2
    #: Of the student's labels: only those that are right so often by what held-out sessions show; a session
    #: without any stays without a label. 0: every session gets its best intent.
    min_precision: Annotated[float, Field(ge=0, le=1)] = 0.0


class RelabelConfig(_Frozen):
    """Which sessions are asked again when an intent was added to the taxonomy."""

    low_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5  # those whose surest label is below
    nearest: Annotated[float, Field(ge=0, le=1)] = 0.05  # share of sessions nearest to its examples


class NoveltyConfig(_Frozen):
    """When a group of sessions that no intent fits is proposed as a new one."""

    unsure: Annotated[float, Field(ge=0, le=1)] = 0.3  # sessions whose surest label is below
    unsure_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the sessions in the same place, at least
    min_sessions: Annotated[int, Field(ge=2)] = 50
    min_visitors: Annotated[int, Field(ge=1)] = 5
    min_weeks: Annotated[int, Field(ge=1)] = 2  # in which it was seen


class GatesConfig(_Frozen):
    """What ``taxonomy check`` lets pass. Shares are of sessions."""

    other: Annotated[float, Field(ge=0, le=1)] = 0.25  # without any intent, at most
    together: Annotated[float, Field(ge=0, le=1)] = 0.5  # of an intent's, that also have one other, at most
    alike: Annotated[float, Field(ge=0, le=1)] = 0.8  # cosine of two definitions, at most
    smallest: Annotated[float, Field(ge=0, le=1)] = 0.002  # that the rarest intent has, at least
    stability: Annotated[float, Field(ge=0, le=1)] = 0.5  # of two drafts (AMI), at least
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.6  # mean κ of two labelling passes, at least
    sessions: Annotated[int, Field(ge=10)] = 300  # labelled again for the last two


class StudentConfig(_Frozen):
    """The MLP that learns the labels."""

    hidden: Annotated[int, Field(ge=4)] = 256
    epochs: Annotated[int, Field(ge=1)] = 40
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3  # the highest
    #: Also train on an eighth, a quarter and half of the labels, to see what more of them would buy.
    learning_curve: bool = True


class InSessionConversion(_Frozen):
    """The outcome is an event of the session itself; models see only the events before it."""

    kind: Literal["in_session"]
    page: str | None = None
    event_type: str | None = None
    #: Predict from the first k events, for each k; empty: from all events before the outcome.
    prefixes: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _one_outcome(self) -> InSessionConversion:
        if (self.page is None) == (self.event_type is None):
            raise ValueError("give exactly one of page and event_type as the outcome")
        return self


class AccountConversion(_Frozen):
    """The outcome happens later, to the account: a Parquet table of account_id, ts (µs), product."""

    kind: Literal["account"]
    path: Path
    horizon_days: Annotated[float, Field(gt=0)] = 14.0


class TilesConfig(_Frozen):
    """Logged homepage tiles, one row per tile shown.

    Parquet: slate_id, account_id, ts (µs), tile, position (from 0), propensity, clicked.
    """

    path: Path
    lookback_days: Annotated[float, Field(gt=0)] = 30.0


class EvaluateConfig(_Frozen):
    bootstrap: Annotated[int, Field(ge=50)] = 500
    truth: Path | None = None  # the simulator's truth; read by ``evaluate`` and nothing else


class ReportConfig(_Frozen):
    title: str = "What visitors wanted"
    max_points: Annotated[int, Field(ge=100)] = 6000  # on the map of sessions


class ExploreConfig(_Frozen):
    """The explorer: a page on all sessions, and what of them is written for it."""

    max_sessions: Annotated[int, Field(ge=1)] = 100_000  # shown one by one, drawn at random; all are counted
    #: false: counts alone, no session; the map is empty. For whoever may not see single sessions.
    sessions: bool = True
    landmarks: Annotated[int, Field(ge=10)] = 2_000  # laid out by t-SNE; the others are placed beside them
    supported: Annotated[int, Field(ge=0)] = 3_000  # sessions whose surest label is traced to its events
    shard: Annotated[int, Field(ge=1)] = 500  # sessions in a file


class ServeConfig(_Frozen):
    """The service, and how long it keeps what it is sent."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    #: ``sqlite``: in the workspace, for one process. ``redis://…``, ``rediss://…``: for several.
    store: Annotated[str, Field(pattern=r"^(sqlite|rediss?://.+)$")] = "sqlite"
    keep_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    late_hours: Annotated[float, Field(gt=0, le=87_600)] = 24.0  # older events are refused
    future_minutes: Annotated[float, Field(ge=0, le=1440)] = 5.0  # clocks of visitors differ
    max_events_per_visitor: Annotated[int, Field(ge=1)] = 5_000
    half_life_days: Annotated[float, Field(gt=0, le=3650)] = (
        3.0  # of a session's weight in an account's intent
    )
    max_body_kib: Annotated[int, Field(ge=1)] = 256
    max_waiting: Annotated[int, Field(ge=1)] = 1_000  # what comes beyond is answered with 503 at once
    timeout_s: Annotated[float, Field(gt=0)] = 5.0
    requests_per_second: Annotated[float, Field(ge=0)] = 0.0  # with one key; 0: no limit
    reload_seconds: Annotated[float, Field(gt=0)] = 5.0  # how often it looks for a new model and for keys

    @model_validator(mode="after")
    def _late_is_kept(self) -> ServeConfig:
        if self.late_hours > self.keep_days * 24:
            raise ValueError("late_hours is longer than keep_days: an event sent again could count twice")
        return self


class DriftConfig(_Frozen):
    """What ``drift`` compares with the training window, and from where on it is an alarm."""

    days: Annotated[float, Field(ge=0)] = 7.0  # the current window: the last so many; 0: all since the split
    min_sessions: Annotated[int, Field(ge=50)] = 300  # in both windows; with fewer nothing is said
    #: How often a run may raise any alarm though nothing has changed.
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.01
    draws: Annotated[int, Field(ge=50)] = 400  # samples of the training window that say what chance does
    embeddings: Annotated[int, Field(ge=100)] = 20_000  # sessions of a window whose embeddings are compared
    #: Less is no alarm, however certain it is.
    floor_psi: Annotated[float, Field(ge=0)] = 0.01
    floor_js: Annotated[float, Field(ge=0)] = 0.002
    floor_mmd: Annotated[float, Field(ge=0)] = 0.001
    floor_new_pages: Annotated[float, Field(ge=0, le=1)] = 0.01  # share of the events


class SimBankConfig(_Frozen):
    """The simulated bank."""

    out: Path = Path("simbank")
    sessions: Annotated[int, Field(ge=1)] = 60_000  # web sessions, roughly
    days: Annotated[int, Field(ge=2)] = 60
    start: date = date(2026, 3, 2)
    #: How strongly the bank changes from ``drift_from`` (a share of the days) on, and what of it.
    drift: Annotated[float, Field(ge=0, le=1)] = 0.0
    drift_from: Annotated[float, Field(ge=0, lt=1)] = 0.8
    drift_in: tuple[Literal["intents", "pages", "behaviour"], ...] = ("intents", "pages", "behaviour")


class Config(_Frozen):
    """Everything a run needs. Sections not given take their defaults."""

    workspace: Path
    seed: int = 7
    #: What reads and sessionises: ``duckdb`` in this process, or ``spark``.
    engine: Literal["duckdb", "spark"] = "duckdb"
    #: A Spark master (``local[4]``, ``yarn``, ``spark://host:7077``) or a Connect address (``sc://host``).
    spark: str = "local[*]"
    #: Of DuckDB; what does not fit goes to a temporary folder in the workspace.
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")] = "1500MB"
    sources: tuple[SourceConfig, ...] = ()
    privacy: PrivacyConfig = PrivacyConfig()
    sessions: SessionsConfig = SessionsConfig()
    split: SplitConfig = SplitConfig()
    encoder: EncoderConfig = EncoderConfig()
    llm: LlmConfig = LlmConfig()
    taxonomy: TaxonomyConfig = TaxonomyConfig()
    labels: LabelsConfig = LabelsConfig()
    relabel: RelabelConfig = RelabelConfig()
    gates: GatesConfig = GatesConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    student: StudentConfig = StudentConfig()
    conversion: Annotated[InSessionConversion | AccountConversion, Field(discriminator="kind")] | None = None
    tiles: TilesConfig | None = None
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    explore: ExploreConfig = ExploreConfig()
    serve: ServeConfig = ServeConfig()
    drift: DriftConfig = DriftConfig()
    simbank: SimBankConfig | None = None


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_PATHS = re.compile(
    r"workspace|(sources\[\d+\]|conversion|tiles)\.path|sources\[\d+\]\.lookups|evaluate\.truth|simbank\.out|"
    r"encoder\.text|llm\.prompts"
)


def _fill(value: Any, where: str, base: Path) -> Any:
    """Fill environment variables, and make relative paths relative to ``base``."""
    if isinstance(value, dict):
        return {key: _fill(item, f"{where}.{key}" if where else key, base) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, f"{where}[{i}]", base) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ConfigError(
                f"{where}: the environment variable {match[1]} is not set. Set it, or write "
                f"${{{match[1]}:-default}}."
            )
        return found

    value = _VARIABLE.sub(variable, value)
    if "://" in value:
        return value
    if _PATHS.fullmatch(where) and not (where == "encoder.text" and value in ("none", "hashed")):
        return str((base / value).resolve())
    return value


def load_config(path: str | Path) -> Config:
    """Read a ``clickintent.toml``.

    Raises:
        ConfigError: if the file is missing, is not TOML, or has wrong or unknown keys; names each.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: no such file. Give the path of a clickintent.toml.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text. Give the path of a clickintent.toml.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        return Config.model_validate(_fill(raw, "", path.resolve().parent))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "\n".join(f"  {_where(e['loc'])}: {_what(e)}" for e in error.errors())
        raise ConfigError(f"{path} cannot be used:\n{problems}") from error


def _where(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _what(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key; check its spelling against docs/configuration.md"
    if error["type"] == "missing":
        return "is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message} (got {error['input']!r})" if not isinstance(error["input"], dict) else message
