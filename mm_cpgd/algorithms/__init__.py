"""Pure tensor functions of reinforcement learning, and the composition of one objective from them.

Axes: P prompts, G completions a prompt, N = P·G, n rows of one micro-batch, T completion tokens. The room's
files: ``advantages``, ``surrogates``, ``regularizers``, ``aggregation``, ``selection``, ``shaping`` hold the
parts; ``parts`` finds them by name; ``objective`` composes them; ``recipes`` are named compositions.

Nothing is imported here, so that reading a recipe does not load torch.
"""
