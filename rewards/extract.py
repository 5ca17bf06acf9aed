r"""Extraction of the final answer from a free-form completion.

Only text after the thinking and within the model's turn is read. The first of these that is found is the
answer: the last ``<answer>`` tag; the last ``\boxed{…}`` (a run of boxes is one answer), or "the answer is"
after it; the last "the answer is" or similar phrase; a closing "Therefore …" with one number; the last
formula; the last words in bold; a text that is one short formula; the text after the last "is" or "=" of the
last line; the last number of a sentence; the whole text if it is one short line.
"""

from __future__ import annotations

import re

_TAIL = 20_000
_SHORT = 60
_MAX_BOXES = 8
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")
# Between two boxes of one answer: punctuation, "and", a name ("y_2 =").
_JOINT = re.compile(
    r"(?:[\s$,;.()\\\[\]+]|\\q?quad|\\text\s*\{[^{}]{0,30}\b(?:and|or)\s*\}"
    r"|(?:[a-z]{1,12}\s+)?\b(?:and|or)\b|[和或]|[a-zA-Z](?:_\w|_\{\w+\})?\s*=)*"
)
_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end|assistant|user)\|>(?:assistant\b)?|</s>")
_LATER = re.compile(r"\b(?:final|correct|the)\s+answer\s*(?:is|:)|答案(?:是|为|[:\uff1a])", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"(?:^|(?<=[.\n。!?$:]))[ \t]{0,4}"
    r"(?:therefore|thus|hence|so|final answer|in total|所以|因此|故)[,\uff0c:\uff1a]?\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\w:])\d{1,2}:[0-5]\d(?::[0-5]\d)?(?![\w:])(?:\s?[ap]\.?m\b)?|"
    r"(?<![\w.,\\^/])-?\d[\d,]*(?:\.\d+)?(?:\s*[%€£¥°]|\s?[cmdk]?m[²³]?(?![A-Za-z]))?(?![\w/])|(?<!\w)-?\.\d+"
)
_OPERATOR = re.compile(r"\s*[+*/^×÷·](?!\*)\s*[\w\\($]|\s-\s[\w\\($]")
_SUBJECT_IS = re.compile(r"^[A-Z][^(.]*\s.*\b(?:is|are|equals)\s+(?!not\b)(.+)$", re.DOTALL)
_PHRASES = re.compile(
    r"(?:final\s+answer|correct\s+answer|answer|result|correct\s+(?:option|choice))\s*"
    r"(?:\*\*)?\s*(?:(?:is|are|would be|should be|equals)\s*(?:therefore|thus)?\s*[:\uff1a]?|[:\uff1a])"
    r"\s*(?:\*\*)?"
    r"|(?:答案|结果|选项)\s*(?:应该?)?\s*(?:是|为|[:\uff1a])\s*|故(?:填|选|答案为)\s*[:\uff1a]?\s*|fill\s+in\s*:?"
    r"|(?:选|\b(?:I|we)\s+(?:choose|pick|select))\s?[:\uff1a]?\s?(?=\(?[A-H]{1,8}\)?[.。*]{0,3}\Z)"
    r"|^[#* \t]{0,8}(?:final\s)?answer[*: \t]{0,8}\n\s{0,4}|^####\s?(?=-?[$\d][^\n]{0,60}\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_REASON = re.compile(r"[ ,]{1,3}\b(?:because|since)\b.*", re.IGNORECASE | re.DOTALL)
_LOOSE_BOX = re.compile(r"\\boxed\s*([A-Za-z0-9]+|-\d+)(?![\w{])")
_FENCED = re.compile(r"```\w{0,20}\n([^`\n]+)\n```")
_SENTENCE_END = re.compile(r"\n|[。\uff01\uff1f]|[.!?](?=\s|$)(?<!\d\.\d)")
_MATH = re.compile(
    r"\$\$((?:\\\$|[^$])+)\$\$|(?<!\\)\$((?:\\\$|[^$\n])+)(?<!\\)\$"
    r"|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]",
    re.DOTALL,
)
_CLOSING = re.compile(r"(?:\bis|\bare|=|是|为)\s*:?\s*((?:(?!\bis\b|\bare\b)[^=是为]){1,40})$")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


def after_thinking(completion: str) -> str:
    """Return the text after the last closing ``</think>``, up to an unclosed ``<think>`` block."""
    end = completion.rfind("</think>")
    rest = completion[end + len("</think>") :] if end >= 0 else completion
    start = rest.find("<think>")
    if start < 0:
        return rest
    return rest[:start]


def _tagged(text: str) -> str | None:
    start = text.rfind("<answer>")
    if start < 0:
        return None
    content = text[start + len("<answer>") :]
    end = content.find("</answer>")
    return content[:end] if end >= 0 else content


def _braced(text: str, start: int) -> int | None:
    """Return the index of the brace that closes the one before ``start``, or None."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return i
        i += 1
    return None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Return start, end and content of each outermost complete box, left to right."""
    found: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue
        end = _braced(text, match.end())
        if end is None:
            break
        found.append((match.start(), end + 1, text[match.end() : end]))
    return found


def _joined(gap: str) -> bool:
    return len(gap) <= _SHORT and _JOINT.fullmatch(gap) is not None


def _boxed(text: str) -> str | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    first = len(boxes) - 1
    while first > 0 and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    contents = [_innermost(content) for _, _, content in boxes[first:]]
    return contents[0] if len(contents) == 1 else ", ".join(dict.fromkeys(contents))


def _innermost(content: str) -> str:
    r"""Unwrap boxes that are the whole content of another: ``\boxed{\boxed{4}}`` is 4."""
    for _ in range(_MAX_BOXES):
        inner = _boxes(content)
        if not inner or content[: inner[-1][0]].strip(" $") or content[inner[-1][1] :].strip(" $"):
            break
        content = inner[-1][2]
    return content


def _phrased(text: str) -> str | None:
    matches = list(_PHRASES.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :].lstrip(" :*")
    display = re.match(r"\s*(\$\$[^$]+\$\$|\\\[.+?\\\])", rest, re.DOTALL)
    if display:
        return display.group(1)
    end = _SENTENCE_END.search(rest.lstrip())
    return _predicate(rest.lstrip()[: end.start()] if end else rest)


def _predicate(sentence: str) -> str:
    """Return the predicate of a complete sentence: "The volume of $P$ is 120", "Jane started 3 hours ago"."""
    sentence = _REASON.sub("", sentence)
    if (
        len(sentence) > 5 * _SHORT
        or re.match(r"[(\[]?[A-Z][)\].:]", sentence)
        or not re.match(r"[A-Z][\w']*\s", sentence)
    ):
        return sentence
    match = _SUBJECT_IS.match(sentence)
    if match:
        return match.group(1)
    numbers = _NUMBER.findall(sentence)
    return numbers[0] if len(numbers) == 1 and len(sentence.split()) > 3 else sentence


def _boxed_or_later(text: str) -> str | None:
    """Return the last box, or a later statement of the answer."""
    box = _boxed(text)
    if box is None:
        loose = _LOOSE_BOX.findall(text)
        return loose[-1] if loose else None
    after = text[_boxes(text)[-1][1] :]
    stated = _phrased(after) if _LATER.search(after) else None
    return stated if _bare(stated) and len(stated or "") <= _SHORT else box


def _concluded(text: str) -> str | None:
    """Return the only number of the concluding sentence, if no formula is in it or after it."""
    matches = list(_CONCLUSION.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :]
    end = _SENTENCE_END.search(rest)
    sentence = rest[: end.start()] if end else rest
    numbers = list(_NUMBER.finditer(sentence))
    return _alone(numbers[0]) if len(numbers) == 1 and not _MATH.search(rest) else None


def _alone(number: re.Match[str]) -> str | None:
    """Return the number, or None if it is a term or factor: in "158 + LK" the answer is not 158."""
    before, after = number.string[: number.start()], number.string[number.end() :]
    return None if re.search(r"[+*/^×÷·]\s*$|\w\s-\s?$", before) or _OPERATOR.match(after) else number[0]


def _last_number(text: str) -> str | None:
    """Return the last number of the last line if that is a sentence; "Scheme 2" and "15 people" are not."""
    line = text.rpartition("\n")[2]
    sentence = len(re.findall(r"[A-Za-z']+", line)) > 2 or ":" in line
    numbers = list(_NUMBER.finditer(line))
    return _alone(numbers[-1]) if sentence and numbers and not re.match(r"[\d$(\\-]", line) else None


def _last_math(text: str) -> str | None:
    matches = list(_MATH.finditer(text))
    return next(group for group in matches[-1].groups() if group) if matches else None


def _last_bold(text: str) -> str | None:
    matches = _BOLD.findall(text)
    return matches[-1] if matches else None


def _closing(text: str) -> str | None:
    """Return the text after the last "is" or "=" of the last line if it is short: "the area is (C)"."""
    line = text.rpartition("\n")[2]
    match = _CLOSING.search(line)
    return match.group(1) if match and re.search(r"\w", match.group(1)) else None


def _formula(text: str) -> str | None:
    """Return the whole text if it is one short line without words: "x = 2, y = 3"."""
    words = re.search(
        r"(?<![\\A-Za-z])(?!(?:and|sin|cos|tan|log|sqrt)\b)[A-Za-z]{3,}|\bis\b|[\u4e00-\u9fff]", text
    )
    return None if words or "boxed" in text else _whole(text)


def _whole(text: str) -> str | None:
    fenced = _FENCED.fullmatch(text)
    if fenced:
        return fenced.group(1)
    return text if len(text) <= _SHORT and "\n" not in text else None


def _bare(text: str | None) -> str | None:
    """Return the text without surrounding space and emphasis, or None if nothing is left."""
    bare = text.strip().replace('\\"', '"').strip('*_`"').strip() if text else ""
    return bare or None


def _turn(text: str) -> str:
    """Return the model's own turn: text after a chat template's end mark is not read."""
    return next((piece for piece in _TURN.split(text) if piece.strip()), "")


_FINDERS = {
    "in the last \\boxed{}, or stated after it": _boxed_or_later,
    'after a phrase such as "the answer is"': _phrased,
    "the one number of the conclusion": _concluded,
    "the last formula": _last_math,
    "the last words in bold": _last_bold,
    "the whole text, a short formula": _formula,
    'at the end of the last line, after "is" or "="': _closing,
    "the last number of the last line": _last_number,
    "the whole text, which is short": _whole,
}


def locate_answer(completion: str) -> tuple[str, str] | None:
    """Return the final answer of a completion and a description of its place, or None if there is none.

    Only the last 20,000 characters after the thinking are read.
    """
    text = _EMPTY_BOX.sub("", _turn(after_thinking(completion)[-_TAIL:])).strip()
    tagged = _tagged(text)
    if tagged is not None:
        answer = _bare(_boxed(tagged)) or _bare(_phrased(tagged)) or _bare(tagged)
        return (answer, "in the last <answer> tag") if answer else None
    for place, find in _FINDERS.items():
        found = _bare(find(text))
        if found:
            return found, place
    return None


def extract_answer(completion: str) -> str | None:
    """Return the final answer of a completion as its author wrote it, or None if there is none."""
    located = locate_answer(completion)
    return located[0] if located else None
