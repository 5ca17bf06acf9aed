"""The policy: a vision-language model with its processor, asked for prompts and log-probabilities."""

from mm_cpgd.policy.batch import EncodedPrompt, collate_prompts, collate_rows
from mm_cpgd.policy.logprobs import token_logprobs
from mm_cpgd.policy.model import Policy, load_policy
from mm_cpgd.policy.prompts import PromptEncoder

__all__ = [
    "EncodedPrompt",
    "Policy",
    "PromptEncoder",
    "collate_prompts",
    "collate_rows",
    "load_policy",
    "token_logprobs",
]
