"""The network, the mixture over its embeddings, the losses, and what reads and writes them."""

from models.inference import Run, load_run

__all__ = ["Run", "load_run"]
