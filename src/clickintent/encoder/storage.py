"""A saved encoder: the one place where it touches the disk. No pickle.

encoder.json            configuration, vocabularies, quantiles, metrics, version, format
weights.safetensors     the torch state, to continue training; not needed to embed
encoder.onnx            the session model, self-contained; its doc_string says what goes in
encoder.int8.onnx       the same with integer weights, where that hardly changes the embeddings
text.safetensors        the text encoder's tables
alignments.safetensors  by version of an earlier encoder, the map into its space, if there are any
README.md               the model card, for people (see ``card``)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from clickintent._version import __version__
from clickintent.config import EncoderConfig
from clickintent.encoder.card import card
from clickintent.encoder.features import FeatureSpace, Floats
from clickintent.encoder.runtime import OnnxEncoder
from clickintent.encoder.text import Tensors, from_tensors
from clickintent.errors import ArtifactError
from clickintent.workspace import atomically

FORMAT = 2
JSON, WEIGHTS, ONNX, TEXT = "encoder.json", "weights.safetensors", "encoder.onnx", "text.safetensors"
INT8, ALIGNMENTS, CARD = "encoder.int8.onnx", "alignments.safetensors", "README.md"

Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class Artifact:
    """All that a trained encoder consists of."""

    config: EncoderConfig
    seed: int
    space: FeatureSpace
    metrics: dict[str, Any]
    weights: Tensors
    text: Tensors
    onnx: bytes
    int8: bytes | None = None
    alignments: dict[str, Floats] = field(default_factory=dict)  # by version of another encoder

    @cached_property
    def version(self) -> str:
        """12 hexadecimal digits of what decides where a session is put; equal encoders have equal ones."""
        features = json.dumps(self.space.to_json(), sort_keys=True)
        digest = hashlib.blake2b(self.onnx, digest_size=6)
        text = self.config.text if self.config.text in ("none", "hashed") else "a sentence model"
        shape = json.dumps([self.config.dim, self.config.max_events, text])
        for part in (shape.encode(), features.encode(), save_tensors(self.text)):
            digest.update(part)
        return digest.hexdigest()

    def runtime(self, where: str, precision: Precision = "float32") -> OnnxEncoder:
        """Ready to embed; ArtifactError if a part cannot be used or is not there, naming ``where``."""
        onnx = self.onnx if precision == "float32" else self.int8
        if onnx is None:
            raise ArtifactError(
                f"{where}: there is no int8 model, because it would have changed the embeddings too much "
                "(see metrics, 'int8'). Load the encoder as float32."
            )
        text = from_tensors(self.config.text, self.config.text_dim, self.text, where)
        return OnnxEncoder(onnx, self.space, text, self.config.dim, where)


def save(artifact: Artifact, folder: Path) -> None:
    """Write the folder atomically, in place of the encoder that was there.

    Raises:
        ArtifactError: if what is there is no encoder.
    """
    if folder.exists() and not ((folder / JSON).exists() or (folder.is_dir() and not any(folder.iterdir()))):
        raise ArtifactError(
            f"{folder} is there and is no encoder; it would be lost. Give the encoder a folder of its own."
        )
    head = {
        "format": FORMAT,
        "version": __version__,
        "encoder_version": artifact.version,
        "config": artifact.config.model_dump(mode="json"),
        "seed": artifact.seed,
        "features": artifact.space.to_json(),
        "metrics": artifact.metrics,
        "int8": artifact.int8 is not None,
        "alignments": list(artifact.alignments),
    }
    with atomically(folder) as temporary:
        temporary.mkdir()
        (temporary / JSON).write_text(json.dumps(head, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (temporary / WEIGHTS).write_bytes(save_tensors(artifact.weights))
        (temporary / TEXT).write_bytes(save_tensors(artifact.text))
        (temporary / ONNX).write_bytes(artifact.onnx)
        if artifact.int8 is not None:
            (temporary / INT8).write_bytes(artifact.int8)
        if artifact.alignments:
            (temporary / ALIGNMENTS).write_bytes(save_tensors(dict(artifact.alignments)))
        (temporary / CARD).write_text(card(artifact), encoding="utf-8")


def load(folder: Path) -> Artifact:
    """Read a saved encoder.

    Raises:
        ArtifactError: if a file is missing, damaged, or of another format; names the file.
    """
    path = folder / JSON
    try:
        head = json.loads(_read(path).decode("utf-8"))
        if not isinstance(head, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise ArtifactError(f"{path}: not readable JSON: {error}. Save the encoder anew.") from error
    if head.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: format {head.get('format')!r}, but clickintent {__version__} reads format {FORMAT}. "
            f"It was written by clickintent {head.get('version', '(unknown)')}; train it anew."
        )
    try:
        config = EncoderConfig.model_validate(head["config"])
        space = FeatureSpace.from_json(head["features"])
        seed, metrics = int(head["seed"]), dict(head["metrics"])
    except ValidationError as error:
        wrong = "; ".join(f"config.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ArtifactError(f"{path}: {wrong}. Save the encoder anew.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: a part is missing or wrong: {error}. Save the encoder anew.") from error
    return Artifact(
        config=config,
        seed=seed,
        space=space,
        metrics=metrics,
        weights=_tensors(folder / WEIGHTS),
        text=_tensors(folder / TEXT),
        onnx=_read(folder / ONNX),
        int8=_read(folder / INT8) if head.get("int8") else None,
        alignments=_alignments(folder / ALIGNMENTS, head.get("alignments") or []),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}). An encoder is a folder of {JSON}, {WEIGHTS}, "
            f"{ONNX} and {TEXT}; make it with 'clickintent pretrain' or SessionEncoder.save."
        ) from error


def _alignments(path: Path, versions: list[str]) -> dict[str, Floats]:
    tensors = _tensors(path) if versions else {}
    try:
        return {version: tensors[version].astype(np.float32) for version in versions}
    except KeyError as error:
        raise ArtifactError(f"{path}: no map into the space of {error}. Save the encoder anew.") from error


def _tensors(path: Path) -> Tensors:
    try:
        return dict(load_tensors(_read(path)))
    except SafetensorError as error:
        raise ArtifactError(f"{path}: damaged: {error}. Save the encoder anew.") from error
