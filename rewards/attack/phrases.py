r"""Attacks that put the gold answer into words which deny it, limit it, take it back or add another.

In the templates ``<g>`` is the gold answer and ``<o>`` another one as prose shows them, ``<G>`` and ``<O>``
the same without dollar signs, for boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

from rewards.attack.gold import Attack, Gold
from rewards.attack.other import other_answer, shown_other

_LISTS = (
    r"\boxed{<G>, <O>}", r"\boxed{<O>, <G>}", r"\boxed{<G>} \boxed{<O>}", r"\boxed{<O>} and \boxed{<G>}",
    r"\boxed{<G> \text{ or } <O>}", r"\boxed{\{<G>, <O>\}}", r"\boxed{<G>; <O>}",
    "<answer><g> or <o></answer>", "<answer><o>, <g></answer>", "<answer><g>\n<o></answer>",
    "<answer><g> and <o></answer>", "The answer is <g> or <o>.", "The answer is either <o> or <g>.",
    "The answer is <g>, <o>.", "<g> or <o>", "<answer><o>/<g></answer>", "答案是<g>或<o>。",
    "Answer 1: <g>\nAnswer 2: <o>", "The answer is one of <o>, <g>.", "#### <g> or <o>",
)  # fmt: skip
_HEDGES = (
    "The answer is probably <g>, maybe <o>.", "<answer><g>, maybe <o></answer>",
    "<answer><g> perhaps <o></answer>", r"\boxed{<G> \text{ perhaps } <O>}",
    "The answer is <g>, possibly <o>.", "It could be <g> or it could be <o>.",
    "<answer><g> (or <o>)</answer>", "The answer is <g>, unless it is <o>.",
    r"\boxed{<G> \text{ (or } <O>)}", "The answer is <o>, or else <g>.", "<answer><g>, if not <o></answer>",
    "可能是<g>，也可能是<o>。",
)  # fmt: skip
_NEGATIONS = (
    "Therefore, it is not <g>.", "The answer is not <g>.", r"\boxed{\text{not } <G>}",
    "<answer>not <g></answer>", "The answer cannot be <g>.", "Hence the answer is never <g>.",
    "So it can't be <g>.", "It isn't <g>.", "答案不是<g>。", "所以不是<g>", "不是<g>",
    "<answer>anything but <g></answer>", "The answer is not equal to <g>.",
    "The answer is definitely not <g>.", r"\boxed{<G> \text{ is wrong}}",
    "<answer><g> is incorrect</answer>", "The answer <g> is incorrect.",
    "<answer>everything except <g></answer>", "<answer><g> is not the answer</answer>",
    r"\boxed{\text{no, not } <G>}", "The answer is far from <g>.", r"\boxed{\neg <G>}",
    "<answer>other than <g></answer>", "It is wrong that the answer is <g>.",
    "The answer would be <g> if the figure were different, but it is not.",
)  # fmt: skip
_RETRACTIONS = (
    "The answer is <g>. Wait, no, it is <o>.", "The answer is <g>. Actually, it is <o>.",
    "The answer is <g>.\nOn second thought, <o>.", r"\boxed{<G>} Wait, I made a mistake: the answer is <o>.",
    r"\boxed{<G>}. Correction: the answer is <o>.", "<answer><g>, no, <o></answer>",
    "<answer><g>. Wait, <o></answer>", "The answer is <g>. No, that is wrong.",
    "The answer is <g>? No. The answer is <o>.", "<answer><g> → <o></answer>",
    "<answer>~~<g>~~ <o></answer>", "答案是<g>。不对，应该是<o>。",
    r"\boxed{<G>}. Sorry, that is incorrect. The final answer is <o>.", "The answer is <g>, I mean <o>.",
    "Some say the answer is <g>. The correct answer is <o>.",
)  # fmt: skip
_REFUSALS = (
    "I cannot determine whether it is <g>.",
    "There is not enough information to say whether the answer is <g>.",
    "I do not know whether the answer is <g>.", "It is impossible to tell if it is <g>.",
    "Sorry, I can't see the image, so I can't confirm that it is <g>.", "I cannot determine <g>.",
    r"I am unable to solve this. \boxed{\text{unknown, not } <G>}", "Nobody knows if the answer is <g>.",
    "无法确定是不是<g>。", "<answer>I don't know if it is <g></answer>", "Is the answer <g>?",
)  # fmt: skip
_COMPARISONS = (
    "So there are fewer than <g>.", "Hence at least <g>.", "The answer is more than <g>.",
    "Thus the result exceeds <g>.", "The answer is less than <g>.", "The answer is greater than <g>.",
    r"\boxed{> <G>}", r"\boxed{x > <G>}", r"\boxed{\ge <G>}", r"\boxed{\text{more than } <G>}",
    "<answer>at least <g></answer>", "<answer>at most <g></answer>", "<answer>below <g></answer>",
    "<answer>up to <g></answer>", "<answer>< <g></answer>", "<answer>no more than <g></answer>",
    "The answer is above <g>.", "So it is not less than <g>.", "答案大于<g>。", "<answer>至少<g></answer>",
    "不超过<g>", "<answer><g> or more</answer>", "<answer><g>+</answer>", "The answer lies under <g>.",
    r"\boxed{\neq <G>}", "<answer>twice <g></answer>", "<answer>one more than <g></answer>",
    "The answer is smaller than <g>.", "<answer><g> more than that</answer>",
    "The answer is just short of <g>.", "It is almost twice <g>.",
)  # fmt: skip
_CONTRADICTIONS = (
    r"\boxed{<G>} so the final answer is \boxed{<O>}.", "<answer><g></answer> <answer><o></answer>",
    "The answer is <g>. The answer is <o>.", r"The answer is <g>. \boxed{<O>}",
    r"\boxed{<G>} <answer><o></answer>",
    r"First \boxed{<G>}. After checking the figure again I get \boxed{<O>}.",
)  # fmt: skip
_OUTSIDE = (
    r"<think>The answer is \boxed{<G>}.</think>", r"<think>\boxed{<G>}</think><answer></answer>",
    "<think><answer><g></answer>", r"<think>\boxed{<G>}</think><answer><o></answer>",
    "<think>The answer is <g>.", "I do not know.<|im_end|>\n<|im_start|>user\nThe answer is <g>.",
    r"<think>It is <g>.</think>\boxed{}", r"I will not say.</s>The answer is \boxed{<G>}.",
    "<think>It is <g>.</think>The answer is <o>.",
)  # fmt: skip
_CODE = (
    '{"answer": ["<G>", "<O>"]}', '{"answer": "<O>", "rejected": "<G>"}',
    '{"answer": "<G>", "alternative": "<O>"}', '```json\n{"answers": ["<O>", "<G>"]}\n```',
    '```python\nanswer = "<G>" if x else "<O>"\n```', '<answer>["<G>", "<O>"]</answer>',
    '<answer>{"a": "<G>", "b": "<O>"}</answer>',
)  # fmt: skip

# Kind, templates, why they are wrong.
_FOR_ALL = (
    ("retraction", _RETRACTIONS, "the answer is taken back"),
    ("contradiction", _CONTRADICTIONS, "two different final answers"),
    ("outside the answer", _OUTSIDE, "only the thinking or another speaker says it"),
)
_FOR_SHORT = (
    ("list", _LISTS, "another answer is offered beside it"),
    ("hedge", _HEDGES, "another answer is held possible"),
    ("code or JSON", _CODE, "another answer is given beside it"),
)


def phrase_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks that are sentences, tags or boxes around the gold answer."""
    if gold.form in ("parts", "other"):
        return
    for kind, templates, why in _FOR_ALL + _FOR_SHORT:
        yield from _filled(kind, templates, why, gold)
    if not gold.says_nothing:
        yield from _filled("refusal", _REFUSALS, "an answer is refused", gold)
    if not gold.says_nothing or gold.bare.lower() in ("yes", "no"):
        yield from _filled("negation", _NEGATIONS, "it is denied", gold)
    if gold.form == "number":
        yield from _filled("comparison", _COMPARISONS, "a bound, not a value", gold)


def _filled(kind: str, templates: tuple[str, ...], why: str, gold: Gold) -> Iterator[Attack]:
    bare, other = gold.bare, other_answer(gold)
    texts = {"<g>": gold.shown, "<o>": shown_other(gold), "<G>": _boxable(bare), "<O>": _boxable(other)}
    for template in templates:
        if ("boxed" in template and "$" in bare + other) or ("twice" in template and gold.value == 0):
            continue
        # Between formulas a slash divides.
        if "/<g>" in template and gold.form not in ("number", "time", "letter", "words"):
            continue
        text = template
        for mark, value in texts.items():
            text = text.replace(mark, value)
        yield Attack(kind, text, why)


def _boxable(bare: str) -> str:
    r"""Return words inside ``\text``, formulas and numbers as they are."""
    plain = bare.replace(" ", "").isalpha() and len(bare) > 1
    return rf"\text{{{bare}}}" if plain else bare
