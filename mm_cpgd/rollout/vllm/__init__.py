"""vLLM as the sampling engine, in the training process or as servers (``docs/vllm.md``)."""

from mm_cpgd.rollout.vllm.backend import VllmBackend, VllmCompletion
from mm_cpgd.rollout.vllm.engine import VllmEngine

__all__ = ["VllmBackend", "VllmCompletion", "VllmEngine"]
