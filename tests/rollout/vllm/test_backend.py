"""vLLM backends on fakes with vLLM's interfaces: what a server gets, and failures of either kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from accelerate import Accelerator

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Sampling
from mm_cpgd.rollout.vllm.colocated import open_colocated
from mm_cpgd.rollout.vllm.server import open_server
from tests.fakes.vllm import SAMPLING, served


def test_sampling_on_a_server_uses_the_option_names_of_its_client(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, client = served(tiny_policy)
    engine.generate(vllm_prompts[1:], SAMPLING, [[11]])
    probe, request = client.requests
    assert (probe["top_k"], probe["max_tokens"]) == (1, 1)
    fields = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs")
    assert [request[name] for name in fields] == [0.7, 0.9, 5, 0.1, 6, 0]
    assert request["generation_kwargs"] == {
        "seed": 11,
        "stop_token_ids": tiny_policy.end_ids,
        "logit_bias": {str(token): -100.0 for token in tiny_policy.forbidden_ids},
    }


def test_a_server_with_raw_logprobs_is_refused_where_they_are_of_another_distribution(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, client = served(tiny_policy)
    monkeypatch.setattr(client, "processed", False)
    engine.generate(vllm_prompts[1:], Sampling(6), [[11]])  # the model's own distribution: either will do
    engine.generate(vllm_prompts[1:], Sampling(6, temperature=0), [[11]])
    for options in ({"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}):
        with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
            engine.generate(vllm_prompts[1:], Sampling(6, **options), [[11]])  # type: ignore[arg-type]


def test_a_server_is_connected_once_and_all_processes_wait_for_the_weights(tiny_policy: Policy) -> None:
    engine, client = served(tiny_policy)
    engine.load_weights(tiny_policy)
    engine.load_weights(tiny_policy)
    sent = ["update_named_params", "reset_prefix_cache", "wait"]
    assert client.calls == ["init_communicator", *sent, *sent]


def test_only_the_main_process_sends_weights(tiny_policy: Policy) -> None:
    engine, client = served(tiny_policy, rank=1)
    engine.load_weights(tiny_policy)
    assert client.calls == ["wait"]


@pytest.mark.parametrize(
    "act",
    [
        lambda engine, vllm_prompts: engine.load_weights(engine.policy),
        lambda engine, vllm_prompts: engine.generate(vllm_prompts[1:], SAMPLING, [[1]]),
    ],
)
def test_a_server_that_fails_ends_the_run_with_a_message(
    act: Callable[..., Any], tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, client = served(tiny_policy)
    client.fail = Exception("Request failed: 500, out of memory")
    with pytest.raises(RunEnded, match=r"http://gpu:8000 failed: .*out of memory.*--resume"):
        act(engine, vllm_prompts)


@pytest.mark.parametrize(
    "start",
    [
        lambda: open_colocated("some/model"),
        lambda: open_server("http://localhost:1", Accelerator(), wait=0.0),
    ],
)
def test_without_vllm_the_message_names_the_extra(start: Callable[[], Any], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'mm-cpgd\[vllm\]'"):
        start()
