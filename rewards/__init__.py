"""Verifiable rewards of mm-cpgd: verdicts on completions. No torch; sympy runs in worker processes."""

from rewards.compose import Component, RewardSum, Scored
from rewards.conversation import ConversationText, turns_of
from rewards.explain import Explanation, explain
from rewards.extract import extract_answer
from rewards.registry import get_rule, list_rules, rule
from rewards.verdict import RuleError, Status, Verdict
from rewards.verify import equivalent, verify, verify_many

__all__ = [
    "Component",
    "ConversationText",
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
    "turns_of",
    "verify",
    "verify_many",
]
