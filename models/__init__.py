"""The network, the mixture over its embeddings, and a trained run in your own code."""

from models.inference import Predictions, Run, load_run

__all__ = ["Predictions", "Run", "load_run"]
