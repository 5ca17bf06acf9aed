"""Sampling distribution of a token: temperature and cuts, the same in sampling and in training.

A completion is drawn from softmax(z / T) over the tokens that the cuts (top-k, top-p, min-p) keep, never from
forbidden ones. The gradient of the expected reward is that of these log-probabilities, with the kept tokens
held fixed: as a function of the weights the kept set is piecewise constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Sampling:
    """Sampling options; temperature 0 means greedy decoding.

    ``min_p_first``: min-p comes before the other cuts, as in vLLM, and not after them.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    min_p_first: bool = False

    @property
    def has_cuts(self) -> bool:
        """Whether some tokens are excluded by their probability."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


def sampling_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return logits (N, V) whose softmax is the sampling distribution: divided by T, -inf where cut.

    Args:
        logits: (N, V) float32; forbidden tokens already set to -inf.
        sampling: applied in the order temperature, top-k, top-p, min-p, or temperature, min-p, top-k, top-p,
            each on the probabilities that the previous one left. Top-k keeps all tokens that tie with the
            k-th; top-p keeps the token that crosses the threshold; min-p is relative to the most probable
            token. Temperature 0: unchanged.
    """
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    if not sampling.has_cuts:
        return logits
    return logits.masked_fill(_cut(logits.softmax(-1), sampling) == 0, -torch.inf)


def _cut(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Set the probabilities excluded by top-k, top-p and min-p to zero; the result is not normalised."""
    if sampling.min_p and sampling.min_p_first:
        probabilities = _above_floor(probabilities, sampling.min_p)
    if sampling.top_k:
        kth = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[:, -1:]
        probabilities = probabilities.where(probabilities >= kth, 0.0)
    if sampling.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        outside = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        probabilities = probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), 0.0)
    if sampling.min_p and not sampling.min_p_first:
        probabilities = _above_floor(probabilities, sampling.min_p)
    return probabilities


def _above_floor(probabilities: Tensor, min_p: float) -> Tensor:
    floor = min_p * probabilities.amax(-1, keepdim=True)
    return probabilities.where(probabilities >= floor, 0.0)


@dataclass(frozen=True)
class KeptTokens:
    """Tokens that the cuts left at each position of n completions.

    Attributes:
        counts: (n, T) int32, how many; 0: all tokens of the model, as where no completion token is.
        ids: (counts.sum(),) int32, row by row and position by position.
    """

    counts: Tensor
    ids: Tensor

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the counts (M,) at M positions and their tokens, in this order."""
        order = rows * self.counts.shape[1] + columns
        flat = self.counts.flatten()
        return flat[order], take_ragged(flat, self.ids, order)

    def select(self, rows: Tensor, width: int) -> KeptTokens:
        """Return these rows, trimmed to ``width`` positions."""
        counts, ids = self.at(
            rows.repeat_interleave(width), torch.arange(width, device=rows.device).repeat(len(rows))
        )
        return KeptTokens(counts.view(len(rows), width), ids)

    @classmethod
    def stack(cls, completions: Sequence[KeptTokens]) -> KeptTokens:
        """Return completions of one row (1, T_i) each as rows of one object (n, max T_i)."""
        if not completions:
            return cls(torch.zeros(0, 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32))
        counts = pad_sequence([one.counts[0] for one in completions], batch_first=True)
        return cls(counts, torch.cat([one.ids for one in completions]))

    @classmethod
    def at_positions(
        cls, shape: Sequence[int], rows: Tensor, columns: Tensor, counts: Tensor, ids: Tensor
    ) -> KeptTokens:
        """Return the object of ``shape`` (n, T) with counts (M,) and tokens given at M positions."""
        table = torch.zeros(*shape, dtype=torch.int32)
        table[rows, columns] = counts.int()
        order = (rows * shape[1] + columns).argsort()
        return cls(table, take_ragged(counts, ids, order).int())


def take_ragged(counts: Tensor, values: Tensor, order: Tensor) -> Tensor:
    """Return the values of the pieces ``order``, where piece i has ``counts[i]`` consecutive values."""
    counts = counts.long()
    starts, chosen = counts.cumsum(0) - counts, counts[order]
    # Position within the result minus the piece's start there, plus its start in the values.
    shift = starts[order] - (chosen.cumsum(0) - chosen)
    return values[torch.arange(int(chosen.sum()), device=values.device) + shift.repeat_interleave(chosen)]


def draw_several(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw K tokens (N, K) from each softmax by inverting its cumulative distribution.

    Args:
        logits: (N, V), -inf for tokens that are never drawn.
        uniforms: (N, K) in [0, 1), which determine the tokens.
    """
    # In float64: a float32 sum over a large vocabulary is inaccurate, and u · total could round up to total.
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    # Only non-finite logits lead past the end; the loss is then not finite either.
    return drawn.clamp(max=logits.shape[-1] - 1)


def kept_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many tokens (N,) of ``sampling_logits`` (N, V) are left, and which, row by row."""
    left = logits > -torch.inf
    return left.sum(-1, dtype=torch.int32), left.nonzero()[:, 1].int()


def kept_mask(counts: Tensor, ids: Tensor, vocabulary: int) -> Tensor:
    """Return (M, V) bool from counts (M,) and tokens of ``KeptTokens.at``; a count of 0 keeps all."""
    mask = (counts == 0).unsqueeze(1).repeat(1, vocabulary)
    rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts.long())
    mask[rows, ids.long()] = True
    return mask


def kept_mass(logits: Tensor, own: Tensor, sampling: Sampling) -> Tensor:
    """Return ln of the probability (N,) that the cuts leave, own tokens included.

    Args:
        logits: (N, V) float32; forbidden tokens already set to -inf.
        own: (N,) the token that was drawn at each position; the engine rounds differently, and has kept it.
        sampling: its temperature and cuts.
    """
    left = sampling_logits(logits, sampling)
    scaled = logits / (sampling.temperature or 1.0)
    own = own.unsqueeze(1)
    left = left.scatter(1, own, scaled.gather(1, own))
    return left.logsumexp(-1) - scaled.logsumexp(-1)
