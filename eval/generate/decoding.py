"""Sampling settings of an evaluation, and the settings that are added to a server's requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mm_cpgd.errors import UserError

# Settings of a request with an option of their own: as settings they can only be left out.
_OPTIONS = {
    "max_tokens": "--max-new-tokens",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "seed": "--seed",
}
# Keys that make a request something else than one complete response to one question.
_OTHERS = ("model", "messages", "n", "stream", "stream_options")
LIMIT = "max_completion_tokens"


@dataclass(frozen=True)
class Decoding:
    """Sampling settings; temperature 0 takes the most probable token.

    Attributes:
        max_new_tokens: length limit of a response.
        temperature: of sampling.
        top_p: probability mass of the tokens that are sampled from.
        seed: seed of sampling.
        top_k: number of tokens that are sampled from, 0 for all.
        min_p: least probability of these, relative to the most probable token.
        request: keys added to every request to a server; one that is None leaves a key out.
        repetition_penalty: factor by which tokens of the prompt and response get less likely; 1 for none.
        stop: texts that end a response; they are not part of it.

    Raises:
        UserError: a value out of its range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    request: Mapping[str, Any] = field(default_factory=dict)
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens {self.max_new_tokens} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature:g} must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g} must be above 0 and at most 1")
        if self.top_k < 0:
            raise UserError(f"--top-k {self.top_k} must be 0 (all tokens) or above")
        if not 0 <= self.min_p < 1:
            raise UserError(f"--min-p {self.min_p:g} must be at least 0 and below 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(f"--repetition-penalty {self.repetition_penalty:g} must be above 0; 1 is none")
        if self.repetition_penalty != 1 and "repetition_penalty" in self.request:
            raise UserError("--repetition-penalty and --setting repetition_penalty are both given; omit one")
        if self.stop and "stop" in self.request:
            raise UserError("--stop and --setting stop are both given; omit one")
        if "" in self.stop:
            raise UserError("--stop '' would end every response at once; give a text")

    @property
    def greedy(self) -> bool:
        """Whether all samples of a question are the same; without a temperature the server has its own."""
        return self.temperature == 0 and "temperature" not in self.request

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect the output: not the seed and the cuts if decoding is greedy."""
        found: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        if self.temperature == 0:
            found["temperature"] = 0
        else:
            found |= {"top_p": self.top_p, "seed": self.seed}
            found |= self._cuts()
        found |= self.extras()
        return found | ({"request": dict(self.request)} if self.request else {})

    def extras(self) -> dict[str, Any]:
        """Return the settings that not every engine has, by vLLM's names, unless they change nothing."""
        found: dict[str, Any] = {}
        if self.repetition_penalty != 1:
            found["repetition_penalty"] = self.repetition_penalty
        if self.stop:
            found["stop"] = list(self.stop)
        return found

    def of_request(self, seed: int) -> dict[str, Any]:
        """Return the sampling settings of a request to a server.

        Args:
            seed: of this sample.
        """
        sent: dict[str, Any] = {"max_tokens": self.max_new_tokens, "temperature": 0}
        if self.temperature != 0:
            sent |= {"temperature": self.temperature, "top_p": self.top_p}
            sent |= self._cuts()
            # Servers store seeds in 32 signed bits.
            sent["seed"] = seed % 2**31
        sent |= self.extras()
        if self.request.get(LIMIT) is not None:
            del sent["max_tokens"]
        merged = {**sent, **self.request}
        return {name: value for name, value in merged.items() if value is not None}

    def _cuts(self) -> dict[str, float]:
        """Return the cuts that leave out tokens, by the names of vLLM and SGLang."""
        return {name: value for name, value in (("top_k", self.top_k), ("min_p", self.min_p)) if value}


def length_limit(request: Mapping[str, Any], given: int | None) -> int | None:
    """Return the length limit of the settings of a request, or else the one that was given.

    Raises:
        UserError: both are given and differ, or it is no number of tokens.
    """
    limit = request.get(LIMIT)
    if limit is None:
        return given
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise UserError(f"--setting {LIMIT}={limit} must be a number of tokens")
    if given is not None and given != limit:
        raise UserError(f"--setting {LIMIT}={limit} and --max-new-tokens {given} differ; omit one of them")
    return limit


def check_request(request: Mapping[str, Any]) -> None:
    """Raise ``UserError`` if a setting has an option of its own, or changes what a request is for."""
    for name, value in request.items():
        if name in _OTHERS:
            raise UserError(f"--setting {name}={value}: {name} cannot be set")
        if name in _OPTIONS and value is not None:
            raise UserError(
                f"--setting {name}={value}: use {_OPTIONS[name]} {value}; here only {name}=null is "
                "possible, which leaves it out of the requests"
            )
