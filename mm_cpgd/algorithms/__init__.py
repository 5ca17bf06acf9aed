"""Pure tensor functions of reinforcement learning, and the composition of one objective from them.

Axes: P prompts, G completions per prompt, N = P·G, n rows of one micro-batch, T completion tokens.
``advantages``, ``surrogates``, ``regularizers``, ``token_weights``, ``aggregation`` and ``selection`` hold
the parts, ``parts`` looks them up by name, ``objective`` composes them. ``mm_cpgd.config.recipes`` holds
named compositions.

Nothing that loads torch is imported here, so that a recipe can be read without it.
"""

from mm_cpgd.algorithms.part_info import described

__all__ = ["described"]
