"""Stored predictions: files of this project, of a benchmark, of VLMEvalKit, lmms-eval, pandas and others."""

from eval.predictions.read import Predictions, read_file, read_predictions
from eval.predictions.samples import check_unique

__all__ = ["Predictions", "check_unique", "read_file", "read_predictions"]
