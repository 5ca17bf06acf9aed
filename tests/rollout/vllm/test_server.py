"""vLLM servers as a backend: what starts, weights on their way to all of them, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from accelerate import Accelerator
from PIL import Image, ImageChops
from torch.distributed.elastic.utils.distributed import get_free_port

from data import Example, ImageRef
from mm_cpgd.errors import EngineFailed, UserError
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Sampling
from mm_cpgd.rollout.vllm.pool import Limits
from mm_cpgd.rollout.vllm.server import open_servers
from mm_cpgd.rollout.vllm.weights_folder import WeightsFolder
from tests.fakes.vllm import SAMPLING
from tests.fakes.vllm_server import FakeServer, PolicyServer, connected, running, served

ONE = [("w", torch.tensor(1.0))]
Two = tuple[FakeServer, FakeServer]


@pytest.fixture
def servers() -> Iterator[Two]:
    pair = (FakeServer(), FakeServer())
    with running(*pair):
        yield pair


@pytest.fixture
def server(tiny_policy: Policy) -> Iterator[tuple[Any, PolicyServer]]:
    engine, server = served(tiny_policy)
    with running(server):
        yield engine, server
    engine.close()


def test_sampling_on_a_server_uses_vllms_option_names(
    server: tuple[Any, PolicyServer], vllm_prompts: list[EncodedPrompt], tiny_policy: Policy
) -> None:
    server[0].generate(vllm_prompts[1:], SAMPLING, [[11]])
    (sent,) = server[1].asked
    fields = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop_token_ids")
    assert [sent[name] for name in fields] == [0.7, 0.9, 5, 0.1, 6, 11, tiny_policy.end_ids]
    assert sent["logit_bias"] == {str(token): -100.0 for token in tiny_policy.forbidden_ids}


def test_an_image_is_sent_without_loss_at_its_place_in_the_text(
    server: tuple[Any, PolicyServer], tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    image = noise_image(112, 84)
    prompt = tiny_policy.encoder.encode(Example("1", "What is <image> here?", "3", images=(image,)))
    server[0].generate([prompt], Sampling(8), [[5]])
    content = server[1].asked[0]["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text"]
    data = content[1]["image_url"]["url"].removeprefix("data:image/png;base64,")
    arrived = Image.open(io.BytesIO(base64.b64decode(data)))
    assert ImageChops.difference(arrived, image.open()).getbbox() is None


def test_weights_arrive_at_all_servers_and_only_the_newest_are_kept(servers: Two, tmp_path: Path) -> None:
    backend = connected(*servers, folder=tmp_path)
    for value in (1.0, 2.0):
        backend.load([("w", torch.tensor(value))])
        assert [float(server.weights["w"]) for server in servers] == [value, value]
        assert len(list(tmp_path.iterdir())) == 1
    assert len({server.version for server in servers}) == 2
    backend.close()
    assert not tmp_path.exists()


def test_a_server_that_is_named_twice_is_one(servers: Two, tmp_path: Path) -> None:
    url = servers[0].url
    backend = open_servers(
        [url, f"{url}/", f"{url}/v1"],
        lambda urls, dtype: WeightsFolder(tmp_path / "weights"),
        Accelerator(cpu=True),
        Limits(wait=0.3, look=0.1),
    )
    backend.load(ONE)
    assert [server.url for server in backend.pool.servers] == [url]
    assert servers[0].calls.count("collective_rpc") == 1


def test_a_server_that_does_not_take_the_weights_is_left_out_with_a_warning(
    servers: Two, tmp_path: Path
) -> None:
    said: list[str] = []
    backend = connected(*servers, folder=tmp_path, say=said.append)
    servers[0].kill()
    backend.load(ONE)
    assert len(said) == 1
    assert said[0].startswith(f"warning: the vLLM server {servers[0].url} cannot be reached")
    servers[0].start()
    backend.load(ONE)
    assert said[1:] == [f"the vLLM server {servers[0].url} answers again and has the current weights"]


def test_a_server_that_starts_anew_while_it_loads_has_not_got_the_weights(
    servers: Two, tmp_path: Path
) -> None:
    said: list[str] = []
    backend = connected(*servers, folder=tmp_path, say=said.append)

    def restart(name: str) -> None:
        if name == "reset_mm_cache":
            servers[0].version = "default"

    servers[0].before = restart
    backend.load(ONE)
    assert "was started anew, or got other weights, while it loaded these" in said[0]
    assert [server.alive for server in backend.pool.servers] == [False, True]


def test_a_server_that_hangs_while_it_loads_is_left_out(servers: Two, tmp_path: Path) -> None:
    said: list[str] = []
    backend = open_servers(
        [server.url for server in servers],
        lambda urls, dtype: WeightsFolder(tmp_path),
        Accelerator(cpu=True),
        Limits(wait=5, look=0.1),
        load_timeout=0.5,
        say=said.append,
    )
    servers[0].before = lambda name: time.sleep(3) if name == "collective_rpc" else None
    start = time.monotonic()
    backend.load(ONE)
    assert time.monotonic() - start < 2.5
    assert "does not answer /collective_rpc in time" in said[0]
    assert [server.alive for server in backend.pool.servers] == [False, True]


def test_weights_are_waited_for_until_a_server_is_back(servers: Two, tmp_path: Path) -> None:
    said: list[str] = []
    limits = Limits(wait=20, look=0.1)
    backend = connected(servers[0], folder=tmp_path, limits=limits, say=said.append)
    backend.load(ONE)
    servers[0].kill()
    threading.Timer(0.5, servers[0].start).start()
    backend.load([("w", torch.tensor(2.0))])
    assert float(servers[0].weights["w"]) == 2
    url = servers[0].url
    assert len(said) == 2
    assert said[0].startswith(f"warning: the vLLM server {url} cannot be reached")
    assert said[1] == f"the vLLM server {url} answers again and has the current weights"


def test_weights_that_no_server_takes_end_the_run(servers: Two, tmp_path: Path) -> None:
    backend = connected(*servers, folder=tmp_path, limits=Limits(wait=0.3, look=0.1))
    for server in servers:
        server.kill()
    with pytest.raises(EngineFailed, match=r"no vLLM server takes the weights: http.*cannot be reached"):
        backend.load(ONE)


def test_a_folder_that_servers_do_not_see_is_said_at_once(
    servers: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = connected(*servers, folder=tmp_path, limits=Limits(wait=60, look=30))
    for server in servers:
        monkeypatch.setattr(server, "_reload", lambda folder: (500, f"no such folder {folder}"))
    started = time.monotonic()
    with pytest.raises(EngineFailed, match=rf"500, no such folder {tmp_path}"):
        backend.load(ONE)
    assert time.monotonic() - started < 10


def test_weights_that_cannot_be_written_end_the_run_after_all_were_gathered(
    servers: Two, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_text("a file where the folder should be")
    backend = connected(*servers, folder=tmp_path / "weights")
    stream = iter([("a", torch.zeros(1)), ("b", torch.zeros(1))])
    with pytest.raises(EngineFailed, match="the weights for vLLM cannot be written"):
        backend.load(stream)
    assert list(stream) == []


@pytest.mark.parametrize("route", ["server_info", "collective_rpc"])
def test_a_server_without_routes_for_weights_is_refused_with_how_to_start_it(
    servers: Two, tmp_path: Path, route: str
) -> None:
    servers[0].missing = {route}
    with pytest.raises(UserError, match=r"refuses a request \(404.*VLLM_SERVER_DEV_MODE=1 vllm serve"):
        connected(*servers, folder=tmp_path).load(ONE)


def test_a_server_with_raw_logprobs_is_refused_where_they_are_of_another_distribution(
    server: tuple[Any, PolicyServer], vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, raw = server
    raw.settings["logprobs_mode"] = "raw_logprobs"
    engine.backend.pool.servers[0].client.inspect()
    engine.generate(vllm_prompts[1:], Sampling(6), [[11]])  # the model's own distribution: either will do
    engine.generate(vllm_prompts[1:], Sampling(6, temperature=0), [[11]])
    for options in ({"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}):
        with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
            engine.generate(vllm_prompts[1:], Sampling(6, **options), [[11]])


def test_the_number_format_is_the_coarsest_of_the_servers(servers: Two, tmp_path: Path) -> None:
    assert connected(*servers, folder=tmp_path).dtype is torch.float32
    servers[1].settings["dtype"] = "torch.bfloat16"
    backend = connected(*servers, folder=tmp_path)
    assert backend.dtype is torch.bfloat16
    assert backend.pool.transport.dtype is torch.bfloat16  # type: ignore[attr-defined]
    servers[1].settings = {}
    assert connected(*servers, folder=tmp_path).dtype is None


def test_servers_that_are_starting_are_waited_for(tmp_path: Path) -> None:
    server = FakeServer()
    with running(server):
        server.kill()
        threading.Timer(0.5, server.start).start()
        connected(server, folder=tmp_path, limits=Limits(wait=20))


def test_a_run_begins_with_the_servers_that_are_there(servers: Two, tmp_path: Path) -> None:
    servers[0].kill()
    said: list[str] = []
    backend = connected(*servers, folder=tmp_path, limits=Limits(wait=0.1), say=said.append)
    backend.load(ONE)
    assert [server.alive for server in backend.pool.servers] == [False, True]
    assert len(said) == 1


def test_without_any_server_the_message_says_how_to_start_one(tmp_path: Path) -> None:
    server = FakeServer()
    server.kill()
    with pytest.raises(UserError, match=rf"no vLLM server responds: {server.url} cannot be .*docs/vllm\.md"):
        connected(server, folder=tmp_path, limits=Limits(wait=0.1))


def loaded_in(rank: int, folder: str, url: str, fails: bool) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    from mm_cpgd.rollout.vllm.server import open_servers
    from mm_cpgd.rollout.vllm.weights_folder import WeightsFolder

    place = Path(folder, f"weights-of-{rank}" if fails else "weights")
    if fails and rank == 0:
        place.write_text("a file where the folder should be")
    taken: list[str] = []

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for name in ("w", "v"):
            taken.append(name)
            yield name, torch.tensor(float(rank + 1))

    backend = open_servers(
        [url], lambda urls, dtype: WeightsFolder(place), Accelerator(cpu=True), Limits(wait=5)
    )
    try:
        backend.load(weights())
        found = [backend.pool.version, backend.pool.servers[0].stamp, backend.pool.servers[0].alive]
    except EngineFailed as error:
        found = [str(error)]
    Path(folder, str(rank)).write_text(json.dumps([taken, found]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fails", [False, True])
def test_the_main_process_sends_and_all_learn_of_it_or_of_its_failure(
    servers: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port())}
    for name, value in {**shared, "ACCELERATE_USE_CPU": "true"}.items():
        monkeypatch.setenv(name, value)
    context: Any = torch.multiprocessing.spawn(
        loaded_in, (str(tmp_path), servers[0].url, fails), nprocs=2, join=False
    )
    while not context.join(60):
        pass
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert [taken for taken, _ in found] == [["w", "v"]] * 2
    assert found[0][1] == found[1][1]
    if fails:
        assert "cannot be written" in found[0][1][0]
    else:
        assert float(servers[0].weights["w"]) == 1
        assert found[0][1][2]
        assert servers[0].calls.count("collective_rpc") == 1
