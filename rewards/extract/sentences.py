"""Answers in the sentences of a text: "the answer is …", "Therefore …", the last formula, the last line."""

from __future__ import annotations

import re

from rewards.extract.marked import Found
from rewards.extract.stance import asserts, denied_after, denied_before, refuses, unasserted_before
from rewards.extract.statement import (
    NUMBER,
    SENTENCE_END,
    bare,
    distil,
    one_number,
    predicate,
    stands_against,
)

_SHORT = 60
_PHRASES = re.compile(
    r"(?:final\s+answer|correct\s+answer|answer|result|correct\s+(?:option|choice))"
    r"(?:\s+to\s+(?:the|this|that|your)\s+(?:question|problem|exercise))?\s*"
    r"(?:\*\*)?\s*(?:(?:is|are|would be|should be|must be|equals)\s*(?:therefore|thus)?\s*[:\uff1a]?"
    r"|[:\uff1a])"
    r"\s*(?:\*\*)?"
    r"|(?:答案|结果|結果|选项|選項)\s*(?:应该?|應該?)?\s*(?:是|为|為|[:\uff1a])\s*|[故应應]?(?:填|[选選][择擇]?|答案[为為])\s*[:\uff1a]?\s*(?=[(（A-H\d\\$-])|fill\s+in\s*:?"
    r"|\b(?:I|we)\s+(?:would\s+)?(?:choose|pick|select|go\s+with)\s?[:\uff1a]?\s?(?=\(?[A-H]{1,8}\)?(?![A-Za-z]))"
    r"|^[#* \t]{0,8}(?:final\s)?answer[*: \t]{0,8}\n\s{0,4}",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED = re.compile(r"\banswer\s*\(?1\)?\s*:.*\banswer\s*\(?2\)?\s*:", re.IGNORECASE | re.DOTALL)
_PHRASE_HINT = re.compile(
    r"answer|result|correct|option|choice|fill|choose|pick|select|go with|答案|结果|結果|选|選|填",
    re.IGNORECASE,
)
_LATER = re.compile(r"\b(?:final|correct|the)\s+answer\s*(?:is|:)|答案(?:是|为|[:\uff1a])", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"(?:^|(?<=[.\n。!?$:]))[ \t]{0,4}"
    r"(?:(?:therefore|thus|hence|so|final answer|in total|in conclusion)\b|所以|因此|故|答(?!案))"
    r"[,\uff0c:\uff1a]?\s*",
    re.IGNORECASE,
)
_OUT_OF = re.compile(r"\d+\s+out\s+of\s+\d+")
_FENCED = re.compile(r"```\w{0,20}\n([^`\n]+)\n```")
MATH = re.compile(
    r"\$\$((?:\\\$|[^$])+)\$\$|(?<!\\)\$((?:\\\$|[^$\n])+)(?<!\\)\$"
    r"|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]",
    re.DOTALL,
)
_CLOSING = re.compile(r"(?:\bis|\bare|=|是|为|為|≈)\s*:?\s*((?:(?!\bis\b|\bare\b)[^=是为為≈]){1,40})$")
# "The circle is x^2+y^2=16": the equation is the answer, not its right side.
_CURVE = re.compile(
    r"(?<!of\s)(?<!of\sthe\s)(?<!of\sa\s)\b(?:equation|circle|ellipse|parabola|hyperbola|curve|line|plane|locus|graph)"
    r"(?:\s+(?:of|for|through|with|that|which)\b[^.=]{0,80}?)?\s+is:?\s+([^=,;]{1,60}=[^=,;]{1,60})$"
)
_STOP = re.compile(r"(?<!\b[A-Z])[.!?]\s+(?=[A-Z][a-z]+\s)")
# A sentence of two words and an amount: "She needs \$7".
_PAYS = re.compile(
    r"(?:he|she|it|they|we|i|you|[A-Z][a-z]+)\s+(?:needs?|ha[sd]|have|pays?|paid|gets?|got|spends?|spent|earns?|earned|"
    r"costs?|saves?|saved|makes?|made|uses?|used|takes?|took|sold|sells?|buys?|bought|owes?|owed)\s+(?:\\?[$€£¥]\s?)?-?\d",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_BARE_LINE = re.compile(
    r"[*_\s]*(?:\(?[A-J]\)(?:\s+[^.!?\n]{1,50})?|[A-J]\.?|-?[$\\]?[\d.,]+\s*%?|-?\d+\s*/\s*\d+|\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\])[*_\s.]*"
)
_WORDS = re.compile(r"(?<![\\A-Za-z])(?!(?:and|sin|cos|tan|log|sqrt)\b)[A-Za-z]{3,}|\bis\b|[\u4e00-\u9fff]")
_VALUE_LIKE = re.compile(r"[\d$\\=]|^\W*\(?[A-J]\)?\W*$")


def _statement(text: str, start: int) -> tuple[str, int]:
    """Return the sentence, or the display formula, that starts at ``start``, and its end."""
    gap = re.compile(r"[ :*\s]*").match(text, start)
    begin = gap.end() if gap else start
    display = re.compile(r"\$\$[^$]+\$\$|\\\[.+?\\\]", re.DOTALL).match(text, begin)
    if display:
        return display.group(), display.end()
    end = SENTENCE_END.search(text, begin)
    stop = end.start() if end else len(text)
    statement = text[begin:stop]
    return ("**" + statement if statement.count("**") % 2 else statement), stop


def phrased(text: str) -> Found | None:
    """Return what the last phrase such as "the answer is" states; a retracting sentence may follow it."""
    matches = list(_PHRASES.finditer(text)) if _PHRASE_HINT.search(text) else []
    if _NUMBERED.search(text):
        return Found(text, len(text)) if len(text) <= 5 * _SHORT else None
    for match in reversed(matches[-3:]):
        statement, end = _statement(text, match.end())
        before = SENTENCE_END.split(text[max(0, match.start() - 160) : match.start()])[-1]
        if unasserted_before(before) or text[end : end + 1] == "?":
            return Found((before + match.group() + statement).strip() + text[end : end + 1], end)
        stated = distil(statement)
        if stated and (len(stated) <= _SHORT or _VALUE_LIKE.search(stated)):
            return Found(stated, end)
    return None


def stated_later(text: str, start: int) -> Found | None:
    """Return a short statement of the answer after ``start``, such as the letter of an option after a box."""
    found = phrased(text[start:]) if _LATER.search(text, start) else None
    return Found(found.text, start + found.end) if found and len(found.text) <= _SHORT else None


def concluded(text: str) -> Found | None:
    """Return what the last sentence with "therefore" states, if no formula follows it."""
    matches = list(_CONCLUSION.finditer(text))
    if not matches:
        return None
    sentence, end = _statement(text, matches[-1].end())
    if not sentence.strip() or MATH.search(text, end) or (text[end:].strip() and len(text) - end > 400):
        return None
    if _OUT_OF.fullmatch(sentence.strip()):
        return Found(sentence, end)
    said = predicate(sentence)
    if stands_against(said or sentence):
        last = len(sentence) <= 2 * _SHORT and not re.search(r"\d", text[end:])
        return Found((said or sentence).strip(), end) if last else None
    number = one_number(sentence)
    if number:
        return Found(number, end)
    if "=" in sentence and re.search(r"[\u4e00-\u9fff]", sentence):
        return closing(sentence)
    stated = _undelimited(distil(sentence))
    short = len(stated) <= _SHORT and (_VALUE_LIKE.search(stated) or len(stated.split()) <= 2)
    return (
        Found(stated, end)
        if short and (said or stated != sentence.strip() or _BARE_LINE.fullmatch(stated))
        else None
    )


def _undelimited(text: str) -> str:
    match = MATH.fullmatch(text.rstrip("."))
    return next(group for group in match.groups() if group) if match else text


def last_line(text: str) -> Found | None:
    """Return the last line if it is nothing but a value: a number, an option, a formula."""
    line = text.rpartition("\n")[2]
    return Found(line, len(text)) if line != text and _BARE_LINE.fullmatch(line) else None


def last_number(text: str) -> Found | None:
    """Return the last number of the last line if that is a sentence; "Scheme 2" and "15 people" are not."""
    line = text.rpartition("\n")[2]
    worded = len(re.findall(r"[A-Za-z']+", line)) > 2 or _PAYS.match(line)
    sentence = worded or ":" in line or re.search(r"[\u4e00-\u9fff]", line)
    numbers = list(NUMBER.finditer(line))
    if not (sentence and numbers and asserts(numbers[-1])) or re.match(r"[\d$(\\-]", line):
        return None
    return Found(numbers[-1][0], len(text))


def last_formula(text: str) -> Found | None:
    """Return the last formula between mathematical delimiters, if its sentence asserts it."""
    matches = list(MATH.finditer(text)) if "$" in text or "\\" in text else []
    if not matches:
        return None
    if _is_phrase_with_formula(text):
        return Found(text, len(text))
    content = next(group for group in matches[-1].groups() if group)
    before = SENTENCE_END.split(text[: matches[-1].start()])[-1]
    after, _ = _statement(text, matches[-1].end())
    line = text.rpartition("\n")[2]
    formulas = len(MATH.findall(line))
    if formulas > 1 and _is_list(MATH.sub(" ", line), formulas):
        return Found(line, len(text))
    unclear = (
        denied_after(after) or unasserted_before(before) or re.search(r"\bor\b", after) or after.endswith("?")
    )
    if unclear or text[matches[-1].end() :].lstrip().startswith("?") or _OR_BEFORE_FORMULA.search(before):
        return Found((before + text[matches[-1].start() :])[: 5 * _SHORT].strip(), len(text))
    if refuses(before + after) or (stands_against(before) and not re.search(r"[,;]", before)):
        return Found((before + matches[-1].group() + after).strip(), matches[-1].end())
    return Found(content, matches[-1].end())


def _is_phrase_with_formula(text: str) -> bool:
    """Return whether a text is a short phrase such as "odd $n$", whose words belong to the answer."""
    words = (
        re.findall(r"[A-Za-z]{2,}", MATH.sub(" ", text)) if len(text) <= _SHORT and "\n" not in text else []
    )
    return 0 < len(words) <= 3 and not any(word.lower() in _CONNECTING for word in words)


def _is_list(outside: str, formulas: int) -> bool:
    """Return whether the text between formulas only lists them: "(A) $1:3$ (B) $1:4$"."""
    words = re.findall(r"[A-Za-z]{2,}", outside)
    few = len(words) <= 2 or (formulas > 2 and len(words) <= 15)
    return (
        "=" not in outside
        and few
        and not any(word.lower() in _CONNECTING - {"and", "or", "the"} for word in words)
    )


_OR_BEFORE_FORMULA = re.compile(r"\bor\s+\W*$", re.IGNORECASE)
_CONNECTING_LIST = (
    "so thus hence therefore then is are be equals get gets have has obtain find found answer result "
    "value solution and or the we it this that gives yields final with from by"
)
_CONNECTING = frozenset(_CONNECTING_LIST.split())


def before_remark(text: str) -> str | None:
    """Return the text without a last line that holds no value ("This solves the problem."), or None."""
    rest, _, line = text.rstrip().rpartition("\n")
    return rest.rstrip() if rest.strip() and not re.search(r"[\d$\\=]|\b[A-J]\b", line) else None


def last_bold(text: str) -> Found | None:
    """Return the last words in bold."""
    matches = list(_BOLD.finditer(text)) if "**" in text else []
    return Found(matches[-1].group(1), matches[-1].end()) if matches else None


def closing(text: str) -> Found | None:
    """Return the text after the last "is" or "=" of the last line if it is short: "the area is (C)"."""
    line = _last_sentence(text.rpartition("\n")[2].rstrip(" .。!！"))
    curve = _CURVE.search(line)
    if curve and not denied_before(line[: curve.start(1)]):
        return Found(curve.group(1), len(text))
    match = _CLOSING.search(line)
    if not match or not re.search(r"\w", match.group(1)):
        return None
    if denied_before(line[: match.start(1)]):
        return Found(line, len(text)) if len(line) <= 2 * _SHORT else None
    if re.search(r"[\u4e00-\u9fff]", match.group(1)) and not stands_against(match.group(1)):
        counted = one_number(match.group(1))
        return Found(counted or match.group(1), len(text))
    if stands_against(line):
        number = None if stands_against(match.group(1)) else NUMBER.search(line, match.start(1))
        return Found(match.group(1), len(text)) if number and asserts(number) else None
    return Found(distil(match.group(1)), len(text))


def _last_sentence(line: str) -> str:
    """Return the last sentence of a line if it has a number, else the line: "8 + 11 = 19. Mia pays 19"."""
    stops = list(_STOP.finditer(line))
    last = line[stops[-1].end() :] if stops else line
    return last if re.search(r"\d", last) else line


def formula(text: str) -> Found | None:
    """Return the whole text if it is one short line without words: "x = 2, y = 3"."""
    return None if _WORDS.search(text) or "boxed" in text else whole(text)


def whole(text: str) -> Found | None:
    """Return the whole text if it is one short line."""
    fenced = _FENCED.fullmatch(text)
    if fenced:
        return Found(fenced.group(1), len(text))
    if len(text) > _SHORT or "\n" in text:
        return None
    return Found(distil(text) if re.match(r"(?:yes|no)\b", text, re.IGNORECASE) else text, len(text))


def declined(text: str) -> Found | None:
    """Return the last sentence if it declines to answer."""
    sentences = [piece for piece in SENTENCE_END.split(text) if bare(piece)]
    last = sentences[-1].strip() if sentences else ""
    return Found(last, len(text)) if last and refuses(last) else None
