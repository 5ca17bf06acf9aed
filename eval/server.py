"""Who answers: a model behind an OpenAI-compatible server. No torch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PIL import Image

from data import DataError, split_at_images
from eval.answers import Decoding, Failure, Job, Question
from eval.cache import Answer
from eval.endpoint import Endpoint, EndpointError, image_part, text_part

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
        """Answer in the order of the jobs.

        Raises:
            EndpointError: every further question would fail the same way.
        """
        waiting: deque[tuple[Job, Future[Answer | Failure]]] = deque()
        # A few more than are asked at once, so that images are ready when a place comes free.
        ahead = self.endpoint.concurrency + 2
        pool = ThreadPoolExecutor(ahead, thread_name_prefix="asking")
        lost = _Lost()
        try:
            for job in jobs:
                waiting.append((job, pool.submit(self._ask, job, decoding)))
                while len(waiting) >= 2 * ahead or (waiting and waiting[0][1].done()):
                    yield lost.checked(*waiting.popleft())
            while waiting:
                yield lost.checked(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

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

    def checked(self, job: Job, future: Future[Answer | Failure]) -> tuple[Job, Answer | Failure]:
        try:
            found = future.result()
        except EndpointError as error:
            return job, self._failed(error)
        self.count = 0
        return job, found

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
