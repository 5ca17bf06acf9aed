"""Protocol of the vLLM server: requests and replies of the real client against a fake HTTP session."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from trl.generation.vllm_client import VLLMClient

from data import Example, ImageRef
from mm_cpgd.errors import RunEnded
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.server import ServerBackend


class Session:
    """HTTP session that replies to ``/v1/chat/completions`` as vLLM does if token ids are requested."""

    def __init__(self, prompt_ids: list[int], end: int) -> None:
        self.prompt_ids, self.end = prompt_ids, end
        self.requests: list[dict[str, Any]] = []
        self.status = 200

    def post(self, url: str, json: Any) -> Any:
        assert url == "http://gpu:8000/v1/chat/completions"
        self.requests.append(json)
        tokens = [41, 42, self.end]
        content: list[dict[str, Any]] = [
            {"token": f"token_id:{token}", "logprob": -0.25 * place, "bytes": None, "top_logprobs": []}
            for place, token in enumerate(tokens)
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "…"},
            "logprobs": {"content": content},
            "finish_reason": "stop",
            "token_ids": tokens,
        }
        body = {"choices": [choice], "prompt_token_ids": self.prompt_ids}
        return SimpleNamespace(status_code=self.status, text="too many images", json=lambda: body)


@pytest.fixture
def image(noise_image: Callable[..., ImageRef]) -> ImageRef:
    return noise_image(112, 84)


@pytest.fixture
def prompt(tiny_policy: Policy, image: ImageRef) -> EncodedPrompt:
    return tiny_policy.encoder.encode(Example("1", "What is <image> here?", "3", images=(image,)))


@pytest.fixture
def session(prompt: EncodedPrompt, tiny_policy: Policy) -> Session:
    return Session(prompt.input_ids.tolist(), tiny_policy.end_ids[0])


@pytest.fixture
def engine(tiny_policy: Policy, session: Session) -> VllmEngine:
    client = object.__new__(VLLMClient)
    vars(client).update(session=session, base_url="http://gpu:8000", model="tiny", communicator=None)
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"))
    return VllmEngine(tiny_policy, ServerBackend(client, accelerator))


def test_tokens_and_logprobs_are_read_from_the_reply(
    engine: VllmEngine, prompt: EncodedPrompt, session: Session
) -> None:
    completion = engine.generate([prompt], Sampling(8), [[5]])[0][0]
    assert completion.tokens.tolist() == [41, 42, session.end]
    assert completion.logprobs.tolist() == [0.0, -0.25, -0.5]
    assert completion.finished


def test_seed_end_and_forbidden_tokens_are_sent_as_json(
    engine: VllmEngine, prompt: EncodedPrompt, session: Session, tiny_policy: Policy
) -> None:
    engine.generate([prompt], Sampling(8, temperature=0.5), [[5, 6]])
    probe, *requests = session.requests
    assert (probe["top_k"], probe["max_tokens"]) == (1, 1)
    assert sorted(body["seed"] for body in requests) == [5, 6]
    sent = json.loads(json.dumps(requests[0]))
    assert (sent["n"], sent["max_tokens"], sent["temperature"]) == (1, 8, 0.5)
    assert (sent["logprobs"], sent["return_token_ids"]) == (True, True)
    assert sent["stop_token_ids"] == tiny_policy.end_ids
    assert sent["logit_bias"] == {str(token): -100.0 for token in tiny_policy.forbidden_ids}


def test_the_image_is_sent_without_loss_at_its_place_in_the_text(
    engine: VllmEngine, prompt: EncodedPrompt, session: Session, image: ImageRef
) -> None:
    engine.generate([prompt], Sampling(8), [[5]])
    content = session.requests[0]["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text"]
    data = content[1]["image_url"]["url"].removeprefix("data:image/png;base64,")
    arrived = Image.open(io.BytesIO(base64.b64decode(data)))
    assert ImageChops.difference(arrived, image.open()).getbbox() is None


def test_an_error_of_the_server_is_reported(
    engine: VllmEngine, prompt: EncodedPrompt, session: Session
) -> None:
    session.status = 400
    with pytest.raises(RunEnded, match="400, too many images"):
        engine.generate([prompt], Sampling(8), [[5]])
