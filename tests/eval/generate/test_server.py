"""Server generator: messages, failures, and when a server is abandoned."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import DataError, ImageRef
from eval.benchmark import Failure
from eval.generate.cache import GenerationCache
from eval.generate.client import EndpointError, Usage
from eval.generate.decoding import Decoding
from eval.generate.generate import Question, generate_responses
from eval.generate.reply import Reply
from eval.generate.server import ServerGenerator
from rewards import Status

Behaviour = Callable[[str], Reply]


class Server:
    """Fake endpoint; ``behave`` replies to the text of the last message."""

    def __init__(self, behave: Behaviour = lambda text: Reply(f"to {text}", True, 5, 2)) -> None:
        self.behave = behave
        self.model, self.url, self.concurrency = "m", "http://here/v1/chat/completions", 3
        self.usage = Usage()
        self.sent: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
        self.lock = threading.Lock()

    def chat(self, messages: list[dict[str, Any]], **sampling: Any) -> Reply:
        with self.lock:
            self.sent.append((messages, sampling))
        reply = self.behave("".join(part.get("text", "") for part in messages[-1]["content"]))
        self.usage = Usage(self.usage.requests + 1)
        return reply


def generator(server: Server, **options: Any) -> ServerGenerator:
    endpoint: Any = server
    return ServerGenerator(endpoint, **options)


def make_image(width: int, height: int, colour: str = "red") -> ImageRef:
    return ImageRef(colour, lambda: Image.new("RGB", (width, height), colour))


def sent_image(part: dict[str, Any]) -> Image.Image:
    url = part["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_text_and_images_are_sent_in_their_order_behind_the_system_prompt() -> None:
    server = Server()
    row = Question(
        "a", "Is <image2> or <image1> red?", (make_image(4, 2), make_image(2, 6, "blue")), "Think."
    )
    (found,) = generate_responses([row], generator(server), Decoding(9)).responses
    assert (found.text, found.finished, found.tokens) == ("to Is  or  red?", True, 2)
    ((messages, sampling),) = server.sent
    assert messages[0] == {"role": "system", "content": "Think."}
    parts = messages[1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    blue = sent_image(parts[1])
    assert (blue.size, blue.getpixel((0, 0))) == ((2, 6), (0, 0, 255))
    assert sampling == {"max_tokens": 9, "temperature": 0}


def test_drawn_samples_are_sent_with_their_own_seeds() -> None:
    server = Server()
    generate_responses([Question("a", "?")], generator(server), Decoding(9, 0.5, 0.9, seed=4), samples=3)
    options = [sampling for _, sampling in server.sent]
    assert {(one["max_tokens"], one["temperature"], one["top_p"]) for one in options} == {(9, 0.5, 0.9)}
    seeds = {one["seed"] for one in options}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({}, (40, 10)),
        ({"max_pixels": 400}, (40, 10)),
        ({"max_pixels": 100}, (20, 5)),
        ({"min_pixels": 1600}, (80, 20)),
        ({"min_pixels": 100, "max_pixels": 1000}, (40, 10)),
    ],
)
def test_images_are_scaled_to_the_requested_area(limits: dict[str, int], size: tuple[int, int]) -> None:
    server = Server()
    generate_responses([Question("a", "?", (make_image(40, 10),))], generator(server, **limits), Decoding(9))
    assert sent_image(server.sent[0][0][0]["content"][0]).size == size


def test_few_questions_are_in_progress_at_any_time() -> None:
    begun: list[str] = []

    def row(number: int) -> Question:
        def load() -> Image.Image:
            begun.append(str(number))
            return Image.new("RGB", (2, 2))

        return Question(str(number), str(number), (ImageRef("drawn", load),))

    gate = threading.Event()

    def slow(text: str) -> Reply:
        assert gate.wait(10)
        return Reply(text, True)

    rows = [row(i) for i in range(60)]
    seen: list[set[str]] = []

    def let_go() -> None:
        seen.append(set(begun))
        gate.set()

    threading.Timer(0.3, let_go).start()
    found = generate_responses(rows, generator(Server(slow)), Decoding(9))
    assert [one.text for one in found.responses] == [str(i) for i in range(60)]
    # Three requests at a time, and two more that are prepared.
    assert seen == [{str(i) for i in range(5)}]


def test_a_question_that_the_server_rejects_fails_alone() -> None:
    def picky(text: str) -> Reply:
        if int(text) % 2:
            raise EndpointError("status 400: too long", status=400)
        return Reply(text, False)

    found = generate_responses(
        [Question(str(i), str(i)) for i in range(40)], generator(Server(picky)), Decoding(9)
    )
    assert len(found.failures) == 20
    assert found.failures["1", 0] == Failure("no reply from the server: status 400: too long")
    assert found.responses[0].finished is False


def test_a_wrong_key_ends_the_run_at_once() -> None:
    def locked(text: str) -> Reply:
        raise EndpointError("status 401: the key is wrong", status=401)

    server = Server(locked)
    with pytest.raises(EndpointError, match="401"):
        generate_responses([Question(str(i), "?") for i in range(100)], generator(server), Decoding(9))
    assert len(server.sent) <= 10


def test_a_server_that_is_down_ends_the_run_and_explains_how_to_resume() -> None:
    def dying(text: str) -> Reply:
        if int(text) >= 5:
            raise EndpointError("no connection")
        return Reply(text, True)

    server = Server(dying)
    with pytest.raises(EndpointError, match=r"8 questions in a row .* same command again"):
        generate_responses([Question(str(i), str(i)) for i in range(100)], generator(server), Decoding(9))
    assert len(server.sent) <= 5 + 8 + 10


def test_an_image_that_cannot_be_opened_is_not_the_servers_fault() -> None:
    opened: list[bool] = []

    def load() -> Image.Image:
        # Readable for its cache key, missing when it is sent.
        opened.append(True)
        if len(opened) == 2:
            raise DataError("image x.png is gone")
        return Image.new("RGB", (2, 2))

    rows = [Question("x", "x", (ImageRef("x.png", load),)), Question("y", "y")]
    found = generate_responses(rows, generator(Server()), Decoding(9))
    assert found.failures == {("x", 0): Failure("image x.png is gone")}
    assert [one.id for one in found.responses if one.failure is None] == ["y"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (Status.REFUSED, "the model refused: I cannot"),
        (Status.FILTERED, "a content filter stopped it: I cannot"),
        (Status.TOOL_CALL, "the model called a tool: I cannot"),
    ],
)
def test_what_is_no_response_is_kept_with_its_status_and_not_cached(
    status: Status, reason: str, tmp_path: Path
) -> None:
    declined = [True]

    def once(text: str) -> Reply:
        return Reply("I cannot", False, declined=status) if text == "b" and declined else Reply("4", True)

    rows = [Question("a", "a"), Question("b", "b")]
    with GenerationCache(tmp_path / "c.jsonl") as cache:
        found = generate_responses(rows, generator(Server(once)), Decoding(9), cache=cache)
        declined.clear()
        again = generate_responses(rows, generator(Server(once)), Decoding(9), cache=cache)
    assert found.failures == {("b", 0): Failure(reason, status, "I cannot")}
    assert found.responses[1].text == "I cannot"
    assert (again.cached, again.failures) == (1, {})


def test_a_key_that_is_refused_for_one_question_fails_it_alone() -> None:
    def forbidding(text: str) -> Reply:
        if text == "7":
            raise EndpointError("status 403: not this one", status=403)
        return Reply(text, True)

    rows = [Question(str(i), str(i)) for i in range(20)]
    assert list(generate_responses(rows, generator(Server(forbidding)), Decoding(9)).failures) == [("7", 0)]


def test_settings_of_the_request_reach_the_server() -> None:
    server = Server()
    request = {"max_completion_tokens": 9, "temperature": None, "reasoning_effort": "low"}
    generate_responses([Question("a", "?")], generator(server), Decoding(9, request=request))
    assert server.sent[0][1] == {"max_completion_tokens": 9, "reasoning_effort": "low"}


def test_failures_that_take_long_do_not_end_a_run_in_which_others_are_answered() -> None:
    """All questions in progress at the end are slow failures, as retries take long."""

    def flaky(text: str) -> Reply:
        if int(text) % 3 == 2:
            time.sleep(0.05)
            raise EndpointError("status 500", status=500)
        return Reply(text, True)

    server = Server(flaky)
    server.concurrency = 12
    rows = [Question(str(i), str(i)) for i in range(120)]
    assert len(generate_responses(rows, generator(server), Decoding(9)).failures) == 40
