"""The part of a completion that can hold its answer: after the thinking, within the model's own turn."""

from __future__ import annotations

import re

_TAIL = 20_000
_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end|assistant|user)\|>(?:assistant\b)?|</s>")
# Polite sentences that end the replies of chat models.
_REMARK = re.compile(
    r"(?:^|(?<=[.!?。！]\s)|\n)\s{0,4}(?:i hope (?:this|that|it|you)|(?:please )?let me know|"
    r"is there anything|"
    r"do you (?:want|have any)|would you like|feel free|hope (?:this|that) helps|if you have any|"
    r"can i help|希望(?:这|對|对)|如果(?:你|您)(?:还|還)?有)[^\n]{0,200}\Z",
    re.IGNORECASE,
)


def after_thinking(completion: str) -> str:
    """Return the text after the last closing ``</think>``, up to an unclosed ``<think>`` block."""
    end = completion.rfind("</think>")
    rest = completion[end + len("</think>") :] if end >= 0 else completion
    start = rest.find("<think>")
    if start < 0:
        return rest
    return rest[:start]


def _without_remarks(text: str) -> str:
    for _ in range(3):
        match = _REMARK.search(text, max(0, len(text) - 400))
        rest = text[: match.start()].rstrip() if match else ""
        if not rest:
            break
        text = rest
    return text


def own_turn(completion: str) -> str:
    """Return the last 20,000 characters of the model's own turn, without thinking and closing remarks.

    Text after a chat template's end mark (``<|im_end|>``) belongs to another turn.
    """
    tail = after_thinking(completion)[-_TAIL:]
    text = next((piece for piece in _TURN.split(tail) if piece.strip()), "") if "<" in tail else tail
    return _without_remarks(text.strip())
