"""Conversations of several turns, with tools that return text and images. Loads no torch."""

from mm_cpgd.environments.protocol import (
    Content,
    Environment,
    EnvironmentFactory,
    Message,
    Observation,
    PlainEnvironment,
    prompt_messages,
    template_tools,
)

__all__ = [
    "Content",
    "Environment",
    "EnvironmentFactory",
    "Message",
    "Observation",
    "PlainEnvironment",
    "prompt_messages",
    "template_tools",
]
