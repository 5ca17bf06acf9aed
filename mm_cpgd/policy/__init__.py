"""Policy: a vision-language model with its processor, prompt encoding and token log-probabilities."""

from mm_cpgd.policy.batch import EncodedPrompt, collate_prompts, collate_rows
from mm_cpgd.policy.logprobs import token_logprobs
from mm_cpgd.policy.model import EMBEDDED, load_policy, load_processor
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.prompts import PromptEncoder

__all__ = [
    "EMBEDDED",
    "EncodedPrompt",
    "Policy",
    "PromptEncoder",
    "collate_prompts",
    "collate_rows",
    "load_policy",
    "load_processor",
    "token_logprobs",
]
