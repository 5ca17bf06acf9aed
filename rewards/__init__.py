"""Verifiable rewards: what a completion is worth, and why. Needs no torch; sympy runs in worker processes."""

from rewards.combine import RewardSum, Scored
from rewards.components import Component
from rewards.equivalence import equivalent
from rewards.errors import RuleError
from rewards.explain import Explanation, explain
from rewards.extract import extract_answer
from rewards.registry import get_rule, list_rules, rule
from rewards.verdict import Status, Verdict
from rewards.verification import verify, verify_many

__all__ = [
    "Component",
    "Explanation",
    "RewardSum",
    "RuleError",
    "Scored",
    "Status",
    "Verdict",
    "equivalent",
    "explain",
    "extract_answer",
    "get_rule",
    "list_rules",
    "rule",
    "verify",
    "verify_many",
]
