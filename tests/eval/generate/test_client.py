"""Chat client against a small server: retries, error messages, usage."""

from __future__ import annotations

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from PIL import Image

from eval.generate.client import Endpoint, EndpointError, Usage, image_content
from eval.generate.reply import Reply
from rewards import Status
from tests.fakes.chat_server import HttpReply, Stub, chat_reply, stub_server
from tests.fakes.clock import Clock

QUESTION = [{"role": "user", "content": "How many?"}]


def endpoint(stub: Stub, clock: Clock | None = None, **options: Any) -> Endpoint:
    """Return an endpoint whose waits take no time."""
    clock = clock or Clock()
    return Endpoint(stub.url, "tiny", **{"clock": clock, "sleep": clock.sleep, "timeout": 5.0, **options})


def test_a_reply_has_text_finish_reason_and_tokens() -> None:
    with stub_server(chat_reply("four")) as stub:
        assert endpoint(stub).chat(QUESTION) == Reply("four", True, 7, 3)
        assert stub.paths == ["/v1/chat/completions"]


def test_the_request_holds_model_messages_and_sampling_as_given() -> None:
    with stub_server(chat_reply("four")) as stub:
        endpoint(stub).chat(QUESTION, temperature=0.5, seed=3)
    assert stub.asked == [{"model": "tiny", "messages": QUESTION, "temperature": 0.5, "seed": 3}]


def test_the_key_is_sent_as_a_bearer_token() -> None:
    with stub_server(chat_reply("four")) as stub:
        endpoint(stub, api_key="sk-1").chat(QUESTION)
        endpoint(stub).chat(QUESTION)
    assert [headers.get("Authorization") for headers in stub.headers] == ["Bearer sk-1", None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_temporary_failures_are_retried(status: int) -> None:
    with stub_server(HttpReply({}, status), chat_reply("four")) as stub:
        assert endpoint(stub).chat(QUESTION).text == "four"
    assert len(stub.asked) == 2


@pytest.mark.parametrize(("status", "setup"), [(400, False), (401, True), (403, True), (404, True)])
def test_a_permanent_failure_is_reported_at_once(status: int, setup: bool) -> None:
    with (
        stub_server(HttpReply({"error": "no such model"}, status)) as stub,
        pytest.raises(EndpointError, match=f"status {status}: .*no such model.*; ") as caught,
    ):
        endpoint(stub).chat(QUESTION)
    assert (caught.value.status, caught.value.setup, len(stub.asked)) == (status, setup, 1)


def test_an_error_with_status_200_is_taken_as_the_status_that_it_names() -> None:
    with stub_server(
        HttpReply({"error": {"code": 429, "message": "quota"}}),
        HttpReply({"error": {"code": 401, "message": "bad key"}}),
    ) as stub:
        with pytest.raises(EndpointError, match=r"status 401.*the key is missing or wrong") as caught:
            endpoint(stub).chat(QUESTION)
        assert (caught.value.setup, len(stub.asked)) == (True, 2)


def test_a_filter_may_reply_with_status_200_and_no_completion() -> None:
    with stub_server(HttpReply({"error": {"code": "content_filter", "message": "blocked"}})) as stub:
        assert endpoint(stub).chat(QUESTION).declined is Status.FILTERED


def test_a_completion_may_have_another_status_of_success() -> None:
    with stub_server(HttpReply(chat_reply("four").body, 201)) as stub:
        assert endpoint(stub).chat(QUESTION).text == "four"


def test_a_redirect_is_reported_and_not_followed() -> None:
    with (
        stub_server(HttpReply({}, 302, {"Location": "/elsewhere"})) as stub,
        pytest.raises(EndpointError, match=r"status 302.*it points to /elsewhere: give the address"),
    ):
        endpoint(stub).chat(QUESTION)
    assert len(stub.asked) == 1


def test_the_key_is_in_no_message() -> None:
    with (
        stub_server(HttpReply({"error": "wrong key sk-secret"}, 401)) as stub,
        pytest.raises(EndpointError) as caught,
    ):
        endpoint(stub, api_key="sk-secret").chat(QUESTION)
    assert "sk-secret" not in str(caught.value)


def test_back_off_is_drawn_below_a_bound_that_doubles_up_to_the_longest() -> None:
    clock = Clock()
    with stub_server(HttpReply({}, 500)) as stub, pytest.raises(EndpointError, match="7 attempts"):
        endpoint(stub, clock, max_retries=6, first_wait=1.0, longest_wait=10.0).chat(QUESTION)
    assert len(stub.asked) == 7
    assert all(0 <= wait <= bound for wait, bound in zip(clock.waits, [1, 2, 4, 8, 10, 10], strict=True))
    assert len(set(clock.waits)) == 6


def test_retry_after_in_seconds_is_waited() -> None:
    clock = Clock()
    limited = HttpReply({}, 429, {"Retry-After": "17"})
    with stub_server(limited, chat_reply("four")) as stub:
        endpoint(stub, clock, first_wait=0.001).chat(QUESTION)
    assert clock.waits[0] == 17


def test_retry_after_as_a_date_is_waited() -> None:
    clock = Clock()
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    with stub_server(HttpReply({}, 503, {"Retry-After": date}), chat_reply("four")) as stub:
        endpoint(stub, clock, first_wait=0.001).chat(QUESTION)
    assert 25 < clock.waits[0] <= 30


def test_a_nonsense_retry_after_falls_back_to_the_back_off() -> None:
    clock = Clock()
    with stub_server(HttpReply({}, 429, {"Retry-After": "soon"}), chat_reply("four")) as stub:
        endpoint(stub, clock, first_wait=0.5).chat(QUESTION)
    assert 0 <= clock.waits[0] <= 0.5


def test_a_requested_wait_of_a_day_is_bounded() -> None:
    clock = Clock()
    with stub_server(HttpReply({}, 429, {"Retry-After": "86400"}), chat_reply("four")) as stub:
        endpoint(stub, clock).chat(QUESTION)
    assert clock.waits[0] == 600


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>busy</html>", "JSON"),
        (b'{"choices": [{"mess', "JSON"),
        ({"error": {"message": "overloaded"}}, "choices: .*overloaded"),
        ({"choices": []}, "choices"),
        ({"choices": [{"message": {"content": "4"}, "finish_reason": "error"}]}, "broke it off"),
        (b"\xff\xfe", "not a chat completion"),
    ],
)
def test_an_unreadable_reply_is_retried_and_then_reported(body: Any, why: str) -> None:
    with stub_server(HttpReply(body)) as stub, pytest.raises(EndpointError, match=why):
        endpoint(stub, max_retries=1).chat(QUESTION)
    assert len(stub.asked) == 2


def test_a_lost_connection_is_retried() -> None:
    with stub_server(HttpReply(hang_up=True), chat_reply("four")) as stub:
        assert endpoint(stub).chat(QUESTION).text == "four"


@pytest.mark.parametrize("length", [True, False])
def test_a_reply_that_ends_early_is_retried(length: bool) -> None:
    early = chat_reply("four")
    early.cut, early.length = 40, length
    with stub_server(early, chat_reply("four")) as stub:
        assert endpoint(stub).chat(QUESTION).text == "four"
    assert len(stub.asked) == 2


@pytest.mark.parametrize("part", ["drip", "drip_head"])
@pytest.mark.parametrize("length", [True, False])
def test_the_time_limit_is_for_the_whole_reply_and_not_for_the_silence_in_it(part: str, length: bool) -> None:
    slow = chat_reply("four")
    slow.length = length
    setattr(slow, part, 0.05)
    started = time.monotonic()
    with stub_server(slow, chat_reply("four")) as stub:
        assert endpoint(stub, timeout=0.4).chat(QUESTION).text == "four"
        assert len(stub.asked) == 2
    assert 0.4 <= time.monotonic() - started < 3


def test_odd_usage_keeps_the_reply() -> None:
    body = b'{"choices": [{"message": {"content": "four"}}], "usage": {"prompt_tokens": NaN}}'
    with stub_server(HttpReply(body)) as stub:
        client = endpoint(stub)
        assert client.chat(QUESTION) == Reply("four", True)
    assert (len(stub.asked), client.usage) == (1, Usage(1, 0, 0))


def test_a_filter_of_the_prompt_is_no_error() -> None:
    stopped = HttpReply({"error": {"code": "content_filter", "message": "The prompt was filtered"}}, 400)
    with stub_server(stopped) as stub:
        reply = endpoint(stub).chat(QUESTION)
    assert reply.declined is Status.FILTERED
    assert "The prompt was filtered" in reply.text


def test_a_time_out_is_retried_and_then_reported() -> None:
    with (
        stub_server(HttpReply({}, delay=0.5)) as stub,
        pytest.raises(EndpointError, match=r"within 0.05 s .*2 attempts"),
    ):
        endpoint(stub, timeout=0.05, max_retries=1).chat(QUESTION)


def test_a_refused_connection_is_reported() -> None:
    with stub_server() as stub:
        pass
    with pytest.raises(EndpointError, match="no connection"):
        endpoint(stub, max_retries=0).chat(QUESTION)


def test_usage_adds_up_over_threads() -> None:
    with stub_server(chat_reply("four")) as stub, ThreadPoolExecutor(4) as threads:
        client = endpoint(stub)
        list(threads.map(lambda _: client.chat(QUESTION), range(20)))
    assert client.usage == Usage(20, 140, 60)


def test_no_more_requests_are_in_progress_than_allowed() -> None:
    answer = chat_reply("four")
    answer.delay = 0.03
    with stub_server(answer) as stub, ThreadPoolExecutor(8) as threads:
        client = endpoint(stub, concurrency=2)
        list(threads.map(lambda _: client.chat(QUESTION), range(8)))
    assert stub.most_at_once == 2


def test_requests_keep_the_rate_limit() -> None:
    with stub_server(chat_reply("four")) as stub, ThreadPoolExecutor(4) as threads:
        client = Endpoint(stub.url, "tiny", requests_per_minute=1200)
        list(threads.map(lambda _: client.chat(QUESTION), range(5)))
    assert max(stub.times) - min(stub.times) >= 4 * 0.05 - 0.02


def test_an_image_is_sent_without_loss() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    url = image_content(image)["image_url"]["url"]
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:8000"},
        {"concurrency": 0},
        {"max_retries": -1},
        {"requests_per_minute": 0},
        {"timeout": 0},
    ],
)
def test_an_impossible_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(
        EndpointError, match=next(iter(options.values())) if "base_url" in options else "must be"
    ):
        Endpoint(**{"base_url": "http://here/v1", "model": "tiny", **options})
