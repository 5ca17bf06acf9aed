"""Server generator: a model behind an OpenAI-compatible server. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from typing import Any, Protocol

from PIL import Image

from data import DataError
from data.example import split_at_images
from eval.benchmark import Failure
from eval.generate.cache import Generation
from eval.generate.client import REQUEST_ERRORS, EndpointError, Usage, image_content, text_content
from eval.generate.decoding import Decoding
from eval.generate.generate import ENDPOINT, Job, Question
from eval.generate.reply import Reply
from rewards import Status
from rewards.messages import short

# This many consecutive failures that are not due to a question mean that the server is down.
_GIVE_UP = 8
_DECLINED = {
    Status.EMPTY: "the reply is empty",
    Status.REFUSED: "the model refused",
    Status.FILTERED: "a content filter stopped it",
    Status.TOOL_CALL: "the model called a tool",
}
# With these vLLM and SGLang continue the last turn; others refuse them or begin a new one.
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


class Chat(Protocol):
    """Client of one server or of several."""

    model: str
    url: str
    concurrency: int

    @property
    def usage(self) -> Usage:
        """Usage so far."""
        ...

    def chat(self, messages: Sequence[Mapping[str, Any]], **sampling: Any) -> Reply:
        """Return the reply to a conversation. Raises ``EndpointError``."""
        ...


class ServerGenerator:
    """Generator with a model behind an endpoint; a bounded number of questions is in progress at any time.

    Args:
        endpoint: client of the model's server or servers.
        min_pixels: area that smaller images are scaled up to before they are sent; None for no scaling.
        max_pixels: area that larger images are scaled down to, likewise.
    """

    def __init__(
        self, endpoint: Chat, *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> None:
        self.endpoint = endpoint
        self.min_pixels, self.max_pixels = min_pixels, max_pixels

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Generator.identity``; a server's weights are identified by its address and name only."""
        return {
            "engine": ENDPOINT,
            "model": self.endpoint.model,
            "model_id": f"{self.endpoint.model} at {self.endpoint.url}",
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
        }

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation | Failure]]:
        """Yield in the order in which the server replies.

        Raises:
            EndpointError: every further question would fail the same way.
        """
        # A few more than the concurrency, so that images are encoded when a slot becomes free.
        ahead = self.endpoint.concurrency + 2
        progress = _Progress(self.endpoint)
        for job in jobs:
            progress.begin(_in_thread(self._generate, job, decoding), job)
            if len(progress.pending) >= ahead:
                yield from progress.completed()
        while progress.pending:
            yield from progress.completed()

    def _generate(self, job: Job, decoding: Decoding) -> Generation | Failure:
        try:
            messages = self._messages(job.question)
        except (DataError, OSError, ValueError) as error:
            return Failure(str(error))
        begun = _CONTINUE if job.question.beginning else {}
        reply = self.endpoint.chat(messages, **begun, **decoding.of_request(job.seed))
        if reply.declined is not None:
            said = f": {short(reply.text, 200)}" if reply.text.strip() else ""
            return Failure(f"{_DECLINED[reply.declined]}{said}", reply.declined, reply.text)
        return Generation(reply.text, reply.finished, reply.completion_tokens)

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        if question.videos:
            raise DataError("a server gets no videos here; evaluate videos with a local model")
        content = [
            image_content(self._scaled(question.images[piece].open()))
            if isinstance(piece, int)
            else text_content(piece)
            for piece in split_at_images(question.text, len(question.images))
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if question.system_prompt:
            messages.insert(0, {"role": "system", "content": question.system_prompt})
        if question.beginning:
            messages.append({"role": "assistant", "content": question.beginning})
        return messages

    def _scaled(self, image: Image.Image) -> Image.Image:
        area = image.width * image.height
        wanted = max(area, self.min_pixels or area)
        wanted = min(wanted, self.max_pixels or wanted)
        if wanted == area:
            return image
        factor = math.sqrt(wanted / area)
        size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)


class _Progress:
    """Questions in progress, and the count of those in a row that the server did not answer."""

    def __init__(self, endpoint: Chat) -> None:
        self.endpoint = endpoint
        self.pending: dict[Future[Generation | Failure], tuple[Job, int]] = {}
        self.replies = self.failures = 0

    def begin(self, future: Future[Generation | Failure], job: Job) -> None:
        """Note a question, and the number of replies when it was asked."""
        self.pending[future] = job, self.replies

    def completed(self) -> Iterator[tuple[Job, Generation | Failure]]:
        """Wait until at least one job is done; remove and yield those that are."""
        for future in wait(self.pending, return_when=FIRST_COMPLETED).done:
            job, replies = self.pending.pop(future)
            try:
                found = future.result()
            except EndpointError as error:
                found = self._failed(error, replies)
            else:
                self.replies += 1
                self.failures = 0
            yield job, found

    def _failed(self, error: EndpointError, replies: int) -> Failure:
        # Once a request has succeeded, address, model and key are right: a 403 is about this question.
        if error.setup and not self.endpoint.usage.requests:
            raise error
        # Failed questions take long, and may be the last ones in progress: those during which others were
        # answered do not show that the server is down.
        self.failures += error.status not in REQUEST_ERRORS and replies == self.replies
        if self.failures >= _GIVE_UP:
            raise EndpointError(
                f"{self.failures} questions in a row got no reply, the last one because: {error}; finished "
                "responses are cached: run the same command again once the server replies",
                status=error.status,
            ) from error
        return Failure(f"no reply from the server: {error}")


def _in_thread(
    function: Callable[..., Generation | Failure], *arguments: Any
) -> Future[Generation | Failure]:
    """Run a function in a daemon thread; a pool's threads would keep an interrupted command from ending."""
    future: Future[Generation | Failure] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="generate", daemon=True).start()
    return future
