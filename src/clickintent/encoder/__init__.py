"""Sessions → embeddings: features, a small network, self-supervised training, ONNX inference."""

from clickintent.encoder.session_encoder import SessionEncoder
from clickintent.encoder.visitors import visitor_embeddings, visitor_history

__all__ = ["SessionEncoder", "visitor_embeddings", "visitor_history"]
