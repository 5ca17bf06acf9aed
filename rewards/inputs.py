"""Arguments of ``verify`` and ``equivalent`` as texts: numbers are converted, anything else is refused.

The ``TypeError`` for a value that has no one text names the argument, shows the value and says what to pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Rational
from typing import Any

from rewards.messages import short

# A float64 holds any decimal of 15 significant digits; further ones may be noise: 0.1 + 0.2 is
# 0.30000000000000004, and its 15 digits are 0.3.
_FLOAT_DIGITS = 15
# Beyond this exponent of ten a number is written as a product, in which no "e" can be read as Euler's number.
_LARGE_EXPONENT = 30
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Message = Mapping[str, Any]


def as_gold(value: Any, what: str = "gold") -> str:
    """Return a gold answer, or the bare answer of ``equivalent``, as a text.

    Args:
        value: a text; a number (int, float, Fraction, Decimal, or a scalar of NumPy or torch); or a list or
            array of one of these. A float is written with at most 15 significant digits.
        what: the argument's name, for the message.

    Raises:
        TypeError: any other value; the message says what to pass instead.
    """
    if isinstance(value, str):
        return str(value)
    value = _without_numpy(value)
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return as_gold(value[0], what)
    text = value if isinstance(value, str) else _number_text(value)
    if text is None:
        raise TypeError(f"{what} is {_shown(value)}: {_advice(value)}")
    return text


def as_completion(value: Any, what: str = "completion") -> str:
    """Return a completion as a text.

    Args:
        value: a text; a number; a chat message; or a conversation, whose last message of the assistant
            counts.
        what: the argument's name, for the message.

    Raises:
        TypeError: any other value; the message says what to pass instead.
    """
    if isinstance(value, str):
        return str(value)
    if _is_message(value):
        return message_text(value)
    if isinstance(value, (list, tuple)) and all(map(_is_message, value)):
        return conversation_text(value)
    text = _number_text(_without_numpy(value))
    if text is None:
        raise TypeError(f"{what} is {_shown(value)}: {_completion_advice(value)}")
    return text


def as_choices(value: Any, what: str = "choices") -> tuple[str, ...]:
    """Return a question's options as texts; numbers are converted.

    Args:
        value: a list or array of texts or numbers in order A, B, …; or a dict with the keys A, B, … in order;
            None or an empty list for a question without options.
        what: the argument's name, for the message.

    Raises:
        TypeError: any other value; the message says what to pass instead.
    """
    if value is None:
        return ()
    if isinstance(value, tuple) and all(type(option) is str for option in value):
        return value
    value = _without_numpy(value)
    if isinstance(value, Mapping) and value and tuple(value) == tuple(_LETTERS[: len(value)]):
        value = list(value.values())
    if isinstance(value, str) or not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise TypeError(
            f"{what} is {_shown(value)}; options must be a list of texts, such as ['12 cm', '15 cm'], in the "
            "order A, B, …"
        )
    return tuple(_option_text(option, f"{what}[{index}]") for index, option in enumerate(value))


def message_text(message: Message) -> str:
    """Return a chat message's text; reasoning that a chat template split off is put back in its tags."""
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(map(_block_text, content))
    thinking = message.get("reasoning_content") or message.get("thinking")
    return f"<think>{thinking}</think>{text}" if thinking else text


def conversation_text(messages: Sequence[Message]) -> str:
    """Return the text of the assistant's last message, empty if there is none."""
    replies = [message for message in messages if message.get("role", "assistant") == "assistant"]
    return message_text(replies[-1]) if replies else ""


def _block_text(block: Any) -> str:
    return block if isinstance(block, str) else str(block.get("text") or "")


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "content" in value


def _without_numpy(value: Any) -> Any:
    """Return an array as a list, and a scalar of NumPy or torch as a number of Python."""
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        # The digits of a 32-bit float are those that NumPy prints; as a float64 it would show its rounding.
        small = getattr(value, "itemsize", 8) < 8 and type(value).__module__ == "numpy"
        return Decimal(str(value)) if small and isinstance(value.item(), float) else value.item()
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def _option_text(value: Any, what: str) -> str:
    if isinstance(value, bool):  # the options "True" and "False" of a judgement
        return str(value)
    return as_gold(value, what)


def _number_text(value: Any) -> str | None:
    """Return a finite or infinite number as a text, None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, Integral):
            return str(int(value))
        if isinstance(value, Rational):
            return f"{value.numerator}/{value.denominator}"
    except ValueError:  # more digits than Python converts (4,300)
        return None
    if not isinstance(value, (float, Decimal)) or _is_nan(value):
        return None
    if math.isinf(value):
        return r"\infty" if value > 0 else r"-\infty"
    return _decimal_text(value if isinstance(value, Decimal) else _shortened(value))


def _is_nan(value: Any) -> bool:
    return value.is_nan() if isinstance(value, Decimal) else isinstance(value, float) and math.isnan(value)


def _shortened(value: float) -> Decimal:
    """Return the decimal that Python prints for a float, or that of 15 digits if it has more."""
    printed = Decimal(repr(value))
    return (
        printed
        if len(printed.as_tuple().digits) <= _FLOAT_DIGITS
        else Decimal(format(value, f".{_FLOAT_DIGITS}g"))
    )


def _decimal_text(value: Decimal) -> str:
    if abs(value.adjusted()) <= _LARGE_EXPONENT:
        return format(value, "f")
    factor, _, exponent = format(value, "e").lower().partition("e")
    return rf"{factor}\times10^{{{int(exponent)}}}"


def _shown(value: Any) -> str:
    try:
        shown = short(repr(value)[:200], 60)
    except Exception:  # the repr of a caller's class
        shown = "an object"
    return f"{shown} ({type(value).__name__})"


def _advice(value: Any) -> str:
    """Return what to pass in place of a value that is not one text or number."""
    if value is None or _is_nan(value):
        return "the row has no gold answer; leave it out, or pass a text or a number"
    if isinstance(value, bool):
        return "pass the words of the answer, such as 'yes' or 'true'"
    if isinstance(value, (bytes, bytearray)):
        return "pass a text: value.decode()"
    if isinstance(value, Mapping):
        return f"pass the entry that holds the answer, of {short(', '.join(map(str, value)), 60)}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return (
            "pass one text. Where all of several answers are required, join them, '2, 3', with ordered=False "
            "if their order is free; where any one is enough, call once for each"
        )
    if isinstance(value, (int, Rational)):
        return "it has too many digits to be compared"
    if type(value).__module__.partition(".")[0] == "sympy":
        return "pass a text: sympy.latex(value)"
    return "pass a text or a number"


def _completion_advice(value: Any) -> str:
    if value is None:
        return "pass the model's text, '' if there was none"
    if isinstance(value, (bytes, bytearray)):
        return "pass a text: value.decode()"
    if isinstance(value, (list, tuple)):
        return (
            "pass one text, or one conversation of messages {'role': …, 'content': …}; verify_many takes "
            "lists of completions"
        )
    return "pass the model's text, or chat messages {'role': …, 'content': …}"
