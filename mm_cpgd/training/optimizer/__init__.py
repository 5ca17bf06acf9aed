"""Optimizer: AdamW with its parameter groups, learning-rate schedule, and the step that is taken with it."""

from mm_cpgd.training.optimizer.build import build_optimizer, build_schedule
from mm_cpgd.training.optimizer.step import Diverged, OptimizerStep

__all__ = ["Diverged", "OptimizerStep", "build_optimizer", "build_schedule"]
