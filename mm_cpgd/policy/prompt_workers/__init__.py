"""Processes that open images and encode prompts."""

from mm_cpgd.policy.prompt_workers.pool import PromptWorkers

__all__ = ["PromptWorkers"]
