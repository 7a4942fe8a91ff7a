"""Sessions → embeddings: features, a small Transformer, self-supervised training, ONNX inference."""

from clickintent.encoder.session_encoder import SessionEncoder

__all__ = ["SessionEncoder"]
