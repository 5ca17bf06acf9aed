"""Server generator: a model behind an OpenAI-compatible server. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from typing import Any

from PIL import Image

from data import DataError, split_at_images
from eval.generate.cache import Answer
from eval.generate.client import Endpoint, EndpointError, image_part, text_part
from eval.generate.generate import Decoding, Failure, Job, Question

# So many questions in a row without an answer, of no fault of their own, mean that the server is gone.
_GIVE_UP = 8
# Statuses that blame the question: too long, too large.
_OWN_FAULT = {400, 413, 422}


class ServerGenerator:
    """Answers through an endpoint; a bounded number of questions is under way at any time.

    Args:
        endpoint: of the model.
        min_pixels: area that smaller images are scaled up to before they are sent; None: as they are.
        max_pixels: area that larger images are scaled down to, likewise.
    """

    def __init__(
        self, endpoint: Endpoint, *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> None:
        self.endpoint = endpoint
        self.min_pixels, self.max_pixels = min_pixels, max_pixels

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Generator.identity``; of a server's weights only address and name are known."""
        return {
            "engine": "endpoint",
            "model": self.endpoint.model,
            "model_id": f"{self.endpoint.model} at {self.endpoint.url}",
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
        }

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Answer | Failure]]:
        """Answer in the order in which the server does.

        Raises:
            EndpointError: every further question would fail the same way.
        """
        # A few more than are asked at once, so that images are ready when a place comes free.
        ahead = self.endpoint.concurrency + 2
        asked: dict[Future[Answer | Failure], Job] = {}
        lost = _Lost()
        for job in jobs:
            asked[_in_thread(self._ask, job, decoding)] = job
            if len(asked) >= ahead:
                yield from lost.checked(asked)
        while asked:
            yield from lost.checked(asked)

    def _ask(self, job: Job, decoding: Decoding) -> Answer | Failure:
        try:
            messages = self._messages(job.question)
        except (DataError, OSError, ValueError) as error:
            return Failure(str(error))
        reply = self.endpoint.chat(messages, **_sampling(decoding, job.seed))
        return Answer(reply.text, reply.finished, reply.completion_tokens)

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        parts = [
            image_part(self._scaled(question.images[piece].open()))
            if isinstance(piece, int)
            else text_part(piece)
            for piece in split_at_images(question.text, len(question.images))
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        if question.system_prompt:
            messages.insert(0, {"role": "system", "content": question.system_prompt})
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


class _Lost:
    """Counts questions in a row that the server did not answer."""

    def __init__(self) -> None:
        self.count = 0

    def checked(self, asked: dict[Future[Answer | Failure], Job]) -> Iterator[tuple[Job, Answer | Failure]]:
        """Wait until something is answered, and take it out."""
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            job = asked.pop(future)
            try:
                found = future.result()
            except EndpointError as error:
                found = self._failed(error)
            else:
                self.count = 0
            yield job, found

    def _failed(self, error: EndpointError) -> Failure:
        if error.setup:
            raise error
        self.count += error.status not in _OWN_FAULT
        if self.count >= _GIVE_UP:
            raise EndpointError(
                f"{self.count} questions in a row got no answer, the last one because: {error}; what was "
                "answered is kept: the same command goes on once the server answers",
                status=error.status,
            ) from error
        return Failure(str(error))


def _in_thread(function: Callable[..., Answer | Failure], *arguments: Any) -> Future[Answer | Failure]:
    """Run it in a thread that does not keep an interrupted command from ending, as a pool's threads would."""
    future: Future[Answer | Failure] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="asking", daemon=True).start()
    return future


def _sampling(decoding: Decoding, seed: int) -> dict[str, Any]:
    if decoding.temperature == 0:
        return {"max_tokens": decoding.max_new_tokens, "temperature": 0}
    return {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        # Servers hold seeds in 32 signed bits.
        "seed": seed % 2**31,
    }
