"""vLLM in the training process, on fakes with its interfaces: options, sleep, weights, adapters, its end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout.vllm.colocated import open_colocated
from tests.fakes.vllm import SAMPLING, FakeLLM, OldWorker, Packing, colocated, install_vllm

LOADED = ["reload_weights", "apply_model", "reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"]


def test_sampling_in_process_uses_the_option_names_of_vllm(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    engine.generate(vllm_prompts[1:], SAMPLING, [[11]])
    assert vars(llm.params[0]) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "max_tokens": 6,
        "stop_token_ids": tiny_policy.end_ids,
        "logit_bias": dict.fromkeys(tiny_policy.forbidden_ids, -100.0),
        "seed": 11,
        "logprobs": 0,
        "detokenize": False,
    }


def test_a_sleeping_vllm_is_woken_for_weights_and_then_for_its_cache(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy, sleep=True)
    engine.load_weights(tiny_policy)
    engine.generate(vllm_prompts[1:], SAMPLING, [[1]])
    engine.generate(vllm_prompts[1:], SAMPLING, [[1]])
    assert llm.calls == [
        ("sleep", 1),
        ("wake_up", ["weights"]),
        *LOADED,
        ("wake_up", ["kv_cache"]),
        "chat",
        ("sleep", 1),
        ("wake_up", ["weights", "kv_cache"]),
        "chat",
        ("sleep", 1),
    ]


def test_without_sleep_mode_vllm_never_sleeps(tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]) -> None:
    engine, llm = colocated(tiny_policy)
    engine.load_weights(tiny_policy)
    engine.generate(vllm_prompts[1:], SAMPLING, [[1]])
    assert llm.calls == [*LOADED, "chat"]


def test_vllm_is_started_with_prefix_caching_and_processed_logprobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: dict[str, Any] = {}
    install_vllm(monkeypatch, lambda **settings: started.update(settings))
    open_colocated(
        "some/model", processes=2, image_limits={"max_pixels": 9}, options={"dtype": "bfloat16", "seed": 5}
    )
    expected = {
        "model": "some/model",
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "mm_processor_kwargs": {"max_pixels": 9},
        "distributed_executor_backend": "external_launcher",
        "dtype": "bfloat16",
        "seed": 5,
    }
    assert expected.items() <= started.items()


def test_a_vllm_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**settings: Any) -> Any:
        raise ValueError("no room for the cache")

    install_vllm(monkeypatch, start)
    with pytest.raises(UserError, match="no room for the cache"):
        open_colocated("some/model")


def test_a_build_for_cpus_computes_no_prompt_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    install_vllm(monkeypatch, lambda **settings: started.update(settings), cpu=True)
    open_colocated("some/model")
    assert started["enable_chunked_prefill"] is False


def test_a_build_for_gpus_computes_prompts_as_vllm_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    install_vllm(monkeypatch, lambda **settings: started.update(settings))
    open_colocated("some/model")
    assert "enable_chunked_prefill" not in started


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (8, 8), (9, 16), (200, 256)])
def test_vllm_makes_room_for_the_rank_of_the_adapters(
    monkeypatch: pytest.MonkeyPatch, rank: int, room: int
) -> None:
    started: dict[str, Any] = {}
    install_vllm(monkeypatch, lambda **settings: started.update(settings))
    open_colocated("some/model", adapter_rank=rank)
    assert (started["enable_lora"], started["max_lora_rank"]) == (True, room)


def test_adapters_of_a_rank_that_vllm_does_not_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_vllm(monkeypatch, lambda **settings: None)
    with pytest.raises(UserError, match=r"rank 512 at most.*policy\.lora\.rank is 513.*adapters=merged"):
        open_colocated("some/model", adapter_rank=513)


def test_a_layer_with_the_weight_of_another_is_packed_again_after_a_reload(tiny_policy: Policy) -> None:
    engine, llm = colocated(tiny_policy)
    engine.load_weights(tiny_policy)
    assert torch.equal(llm.model.head.packed, llm.model.embedding.weight)


def test_a_quantized_layer_is_not_quantized_twice(tiny_policy: Policy) -> None:
    engine, llm = colocated(tiny_policy)
    llm.model.head.quant_method = Packing()
    before = llm.model.head.packed
    engine.load_weights(tiny_policy)
    assert llm.model.head.packed is before


def test_a_vllm_that_cannot_reload_gets_the_weights_by_its_model(tiny_policy: Policy) -> None:
    engine, llm = colocated(tiny_policy)
    llm.worker = OldWorker()
    engine.load_weights(tiny_policy)
    assert llm.calls == LOADED[1:]
    assert llm.model.weights.keys() == dict(tiny_policy.model.named_parameters()).keys()


@pytest.fixture
def adapted(tiny_folder: Any) -> Policy:
    policy = load_policy(PolicyConfig(model=str(tiny_folder), lora=LoraConfig(rank=2, targets=["q_proj"])))
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.constant_(parameter, 0.5)
    return policy


def test_adapters_are_sent_alone_by_the_names_of_their_files(adapted: Policy) -> None:
    engine, llm = colocated(adapted, adapters=True)
    engine.load_weights(adapted)
    (sent,) = llm.llm_engine.adapters.values()
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight"
    assert torch.equal(sent[name], torch.full_like(sent[name], 0.5))
    layers = len(adapted.model.model.language_model.layers)
    assert len(sent) == 2 * layers
    expected = {"r": 2, "lora_alpha": adapted.adapter.peft_config["default"].lora_alpha, "bias": "none"}
    assert expected.items() <= llm.llm_engine.adapter_settings.items()
    layer = "model.language_model.layers.0.self_attn.q_proj"
    assert llm.llm_engine.adapter_settings["target_modules"][0] == layer


def test_new_adapters_replace_the_old_ones_under_another_name(
    adapted: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(adapted, adapters=True)
    used = []
    for _ in range(2):
        engine.load_weights(adapted)
        engine.generate(vllm_prompts[1:], SAMPLING, [[1]])
        used.append(llm.adapter)
    assert used[0].lora_name != used[1].lora_name
    assert list(llm.llm_engine.adapters) == [used[1].lora_int_id]
    sent = ["add_lora", "reset_prefix_cache", "chat"]
    assert llm.calls == [*sent, "remove_lora", *sent]


def test_closing_ends_vllm_and_keeps_the_process_group_of_the_trainer(
    tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda group=None: ended.append(group))
    engine, llm = colocated(tiny_policy)
    backend: Any = engine.backend
    backend.keep_processes = True

    def shutdown() -> None:
        torch.distributed.destroy_process_group("vLLM's own")
        torch.distributed.destroy_process_group()

    llm.llm_engine.engine_core.shutdown = shutdown
    engine.close()
    assert ended == ["vLLM's own"]
    torch.distributed.destroy_process_group()
    assert ended == ["vLLM's own", None]


class TwoProcesses:
    """A sharing group of which another process is the first, with these requests."""

    size = 2

    def __init__(self, others: list[Any]) -> None:
        self.others = others

    def gather(self, own: list[Any]) -> tuple[list[Any], slice]:
        return [*self.others, *own], slice(len(self.others), len(self.others) + len(own))


def test_processes_that_share_a_vllm_submit_all_requests_and_keep_their_own(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    alone, llm = colocated(tiny_policy)
    expected = alone.generate(vllm_prompts, SAMPLING, [[1, 3], [5]])
    others = [(alone._conversation(vllm_prompts[1]), seed) for seed in (7, 9)]
    engine, llm = colocated(tiny_policy, group=TwoProcesses(others))  # type: ignore[arg-type]
    groups = engine.generate(vllm_prompts, SAMPLING, [[1, 3], [5]])
    assert [params.seed for params in llm.params] == [7, 9, 1, 3, 5]
    assert [[one.text for one in group] for group in groups] == [
        [one.text for one in group] for group in expected
    ]


def test_a_process_without_prompts_submits_those_of_the_others(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    others = [(colocated(tiny_policy)[0]._conversation(vllm_prompts[1]), 7)]
    engine, llm = colocated(tiny_policy, group=TwoProcesses(others))  # type: ignore[arg-type]
    assert engine.generate([], SAMPLING, []) == []
    assert [params.seed for params in llm.params] == [7]


def test_without_any_prompt_vllm_is_not_called(tiny_policy: Policy) -> None:
    engine, llm = colocated(tiny_policy)
    assert engine.generate([], SAMPLING, []) == []
    assert llm.calls == []


def test_processes_that_cannot_be_divided_are_refused_before_vllm_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_vllm(monkeypatch, FakeLLM)
    with pytest.raises(UserError, match=r"tensor_parallel=2.*the run's 3"):
        open_colocated("some/model", processes=3, tensor_parallel=2)
