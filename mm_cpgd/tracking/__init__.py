"""Records of a run while it trains: metrics, rollouts, and progress on the screen."""

from mm_cpgd.tracking.metrics import MetricsLog, read_metrics
from mm_cpgd.tracking.progress import Progress
from mm_cpgd.tracking.rollouts import (
    LoggedTurn,
    PromptRollout,
    RolloutLog,
    ScoredCompletion,
    ScoredComponent,
    read_rollouts,
    rollout_files,
)

__all__ = [
    "LoggedTurn",
    "MetricsLog",
    "Progress",
    "PromptRollout",
    "RolloutLog",
    "ScoredCompletion",
    "ScoredComponent",
    "read_metrics",
    "read_rollouts",
    "rollout_files",
]
