r"""Judges that read a whole response, or its marked answer, and reply Yes or No, as MM-EUREKA scores.

Source: ``eval/{k12,olympiadbench}/extract_calculate.py`` of github.com/ModalMinds/MM-EUREKA (the whole
response) and ``eval/mmk12/extract_calculate.py`` of its fork github.com/azaj01/MM-EUREKA (the marked answer).
The judge is GPT-4o there. Differences from that code: an unclear reply is followed by one more request and is
then not judged; there by up to four with rising temperature, and then counts as No. An empty response is
wrong without a request. Options that are not in the question are listed below it; those benchmarks have none.
"""

from __future__ import annotations

import re

from data import Example
from eval.benchmark import Ask, Response, inline_options, lettered
from eval.judges.wording import filled
from eval.scoring.judgement import judged_by_digit
from rewards import Status, Verdict
from rewards.extract.marked import boxed

REMINDER = '\n\nReply with "Yes" or "No" alone.'
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def judge_whole(example: Example, response: Response, ask: Ask) -> Verdict:
    """Judge the whole response. Raises what ``ask`` raises."""
    return _judged("mm_eureka_whole", example, response.text, ask)


def judge_marked(example: Example, response: Response, ask: Ask) -> Verdict:
    r"""Judge what is in the first ``<answer>`` tag, else in the last ``\boxed``, else the whole response.

    Raises what ``ask`` raises.
    """
    tag = _TAGGED.search(response.text)
    box = None if tag else boxed(response.text)
    marked = tag[1].strip() if tag else box.text.strip() if box else response.text
    return _judged("mm_eureka_mmk12", example, marked, ask)


def _judged(prompt: str, example: Example, text: str, ask: Ask) -> Verdict:
    if not text.strip():
        return Verdict(0.0, Status.NO_ANSWER, None, "the response is empty")
    asked = filled(prompt, question=question_of(example), gold=_gold(example), response=text)
    return judged_by_digit(asked, REMINDER, ask, None, lambda right: f"the judge: {'Yes' if right else 'No'}")


def question_of(example: Example) -> str:
    """Return the question, with the options below it unless its text has them."""
    text = example.question.strip()
    if not example.choices or inline_options(text):
        return text
    return f"{text}\n{lettered(example.choices)}"


def _gold(example: Example) -> str:
    """Return the gold answer; OlympiadBench has a list of them, one below the other in the prompt."""
    several = example.meta.get("final_answer")
    return "\n".join(map(str, several)) if isinstance(several, list) and several else example.answer
