"""Conversations of several turns, with tools that return text and images. Loads no torch."""

from mm_cpgd.environments.conversation import ToolEnvironment
from mm_cpgd.environments.coordinates import Box, Point, ToolError, View
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
from mm_cpgd.environments.registry import BoundEnvironment, get_environment, list_environments
from mm_cpgd.environments.scores import Call, Progress
from mm_cpgd.environments.tool import Context, Tool

__all__ = [
    "BoundEnvironment",
    "Box",
    "Call",
    "Content",
    "Context",
    "Environment",
    "EnvironmentFactory",
    "Message",
    "Observation",
    "PlainEnvironment",
    "Point",
    "Progress",
    "Tool",
    "ToolEnvironment",
    "ToolError",
    "View",
    "get_environment",
    "list_environments",
    "prompt_messages",
    "template_tools",
]
