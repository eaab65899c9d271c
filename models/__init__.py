"""The network, the mixture over its embeddings, and a trained run in your own code."""

from models.inference import Predictions, Run, load_run
from models.quality_map import QualityMap

__all__ = ["Predictions", "QualityMap", "Run", "load_run"]
