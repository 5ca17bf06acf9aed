"""The value that one sentence states: "The total is 72 clips, altogether." states 72 clips."""

from __future__ import annotations

import re

from rewards.extract.stance import asserts, compares, denied_before, denies, doubts, refuses
from rewards.math.amounts.number_words import numbers_in

_LONG = 300
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[\u4e00-\u9fff]")
NUMBER = re.compile(
    r"(?<![\w:])\d{1,2}:[0-5]\d(?::[0-5]\d)?(?![\w:])(?:\s?[ap]\.?m\b)?|"
    r"(?<![A-Za-z0-9_.,\\^/])-?\d[\d,]*(?:\.\d+)?(?:\s*[%€£¥°]|\s?[cmdk]?m[²³]?(?![A-Za-z]))?(?![A-Za-z0-9_/])"
    r"|(?<![A-Za-z0-9_])-?\.\d+"
)
SENTENCE_END = re.compile(r"\n|[。\uff01\uff1f]|[.!?](?=\s|$)(?<!\d\.\d)")
_REASON = re.compile(
    r"[ ,;]{1,3}(?:\(\s?)?\b(?:because|since|"
    r"as\s+(?:it|they|we|the|this|that|these|those|there|each|only|an?)\b|due\s+to|which\s+means|given\s+that)\b.*|\s\((?:as|for)\s.*\)$",
    re.I | re.S,
)
_LEAD = re.compile(
    r"\\text\s*\{\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s*\}\s*:?|"
    r"(?:(?:so|thus|then|therefore|hence|well|ok(?:ay)?)\b(?!_)|答|即|也就是|应该?|一共|共|约|大约)[,，:：]?\s*"
    r"|(?:it|this|that)(?:['’]s|\s+(?:is|equals|must\s+be|should\s+be|has\s+to\s+be|would\s+be))\s*:?\s+"
    r"|there\s+(?:are|is)\s+|we\s+(?:get|have|obtain|find)\s+(?:that\s+)?"
    r"|(?:(?:most\s+)?(?:approximately|about|around|roughly|exactly|precisely|simply|just|only|clearly|certainly|"
    r"definitely|surely|still|likely|probably|actually|indeed|equal\s+to|given\s+by|for\s+sure|a\s+total\s+of|the\s+number|"
    r"the\s+value))\s+",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    r"[,\s]+(?:in\s+total|altogether|overall|as\s+(?:required|desired|needed)|respectively|in\s+all|total|here|"
    r"approximately|for\s+sure)[\s.!]*$",
    re.IGNORECASE,
)
_VERB = r"\b(?:is|are|equals|was|were|(?:must|should|will|would|has\s+to|have\s+to)\s+be)\b:?\s+"
_SUBJECT = r"(?:[A-Z]|(?:the|a|an|our|my|his|her|its|their|this|that|there)\s)[^(]*?"
_SUBJECT_IS = re.compile(rf"^({_SUBJECT}.*){_VERB}(?!not\b)(.+)$", re.DOTALL)
_SENTENCE = re.compile(r"[A-Z][\w'’]+\s|[AI]\s+[a-z]|(?:the|there|we|it|he|she|they|this|that|so|an?)\s")
_COMMANDS = re.compile(r"\\(?:begin|end)\s*\{[a-z]*\*?\}|\\[a-zA-Z]+")
_SYMBOL = re.compile(r"[\d$\\=<>^_+*/|(){}\[\]]")
_WITH = re.compile(r"([^\s,]+),?\s+(?:with|which|where)\s+[A-Za-z].*", re.DOTALL)
_YES_NO = re.compile(r"(yes|no|true|false)\b\s*[,.;:，。—–-]+\s*(.+)", re.IGNORECASE | re.DOTALL)
_DATE = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b", re.I
)
# "3 (not 4)", "not 4; it is 3": the denied value is another one.
_INSTEAD = re.compile(
    r"([^()]{1,60}?)\s*\((?:and\s+)?not\s+[^()]{1,30}\)\.?"
    r"|not\s+[^;,.()]{1,30}[;,]\s*(?:but|(?:it|that)(?:['’]s|\s+is)|rather)\s+([^;,]{1,60})",
    re.IGNORECASE,
)
_TURNING = re.compile(r"\b(?:yes|no|not|or|true|false|but)\b|\d", re.IGNORECASE)
# Not the vector <1, 2>.
_BRACKETED_OPTION = re.compile(r"<\s*([A-J](?:[.):][^<>]{0,60})?)\s*>\.?")
_BOLD = re.compile(r"\*\*([^*\n]+)(?:\*\*|$)")
_VALUE = re.compile(r"[\d$\\]|^\W*[A-J]\b")


def bare(text: str | None) -> str | None:
    """Return the text without surrounding space, emphasis and quotes, or None if nothing is left."""
    if not text:
        return None
    stripped = text.strip().replace('\\"', '"').strip('_`"').strip()
    if stripped.count("**") != 1:
        stripped = stripped.strip("*").strip()
    elif stripped.endswith("**") or stripped.startswith("**"):
        inner = stripped.strip("*").strip()
        stripped = inner if "**" not in inner else stripped
    if stripped.startswith("<<") and ">>" in stripped:
        stripped = stripped[2:].replace(">>", " ").strip()
    option = _BRACKETED_OPTION.fullmatch(stripped)
    stripped = option.group(1) if option else stripped
    return stripped or None


def one_number(sentence: str) -> str | None:
    """Return the only number of a sentence without formulas that asserts it, else None."""
    if re.search(r"\\(?![$%])|[=<>≤≥→]", sentence) or _DATE.search(sentence):
        return None
    numbers = list(NUMBER.finditer(sentence))
    return numbers[0][0] if len(numbers) == 1 and asserts(numbers[0]) else None


def stands_against(text: str) -> bool:
    """Return whether a text denies, bounds, doubts or declines rather than states."""
    return denies(text) or compares(text) or doubts(text) or refuses(text)


def _words(text: str) -> int:
    return len(_WORD.findall(_COMMANDS.sub(" ", text) if "\\" in text else text))


def predicate(sentence: str) -> str | None:
    """Return what a sentence says of its subject, or None: "The volume of $P$ is 120", "Jane has 3 left".

    A subject may bound or deny something else ("The number of primes less than 20 is 8").
    """
    if not _SENTENCE.match(sentence) or re.match(r"[(\[]?[A-Z][)\].:]", sentence):
        return None
    match = _SUBJECT_IS.match(sentence)
    if match:
        return None if denied_before(match.group(1)[-60:]) else match.group(2)
    number = one_number(sentence)
    return number if number and len(sentence.split()) > 3 else None


def _first_clause(text: str) -> str:
    """Return the text before a comma, if what follows is a remark without values: "72, so he earns that"."""
    with_remark = _WITH.fullmatch(text)
    if with_remark and not (denies(text) or doubts(text) or refuses(text)):
        return with_remark.group(1)
    head, comma, rest = text.partition(", ")
    if not comma or not head.strip() or _words(rest) < 2 or _SYMBOL.search(rest) or stands_against(rest):
        return text
    if (
        re.search(r"\b(?:and|or)\b|\b[A-J]\b", rest)
        or numbers_in(rest)
        or (_words(head) > 3 and not one_number(head))
    ):
        return text
    return head if re.search(r"\d|[$\\]", head) else text


def _agrees(answer: str, remark: str) -> bool:
    """Return whether the remark after "yes" or "no" leaves the answer as it is; "not" agrees with "no"."""
    remark = re.sub(r"\b(?:are|is|do|does)?\s*not\b|n['’]t\b", " ", remark) if answer == "no" else remark
    return not (_TURNING.search(remark) or stands_against(remark))


def distil(statement: str) -> str:
    """Return what a statement says, without subject, reason and remarks; itself if it asserts no value."""
    text = bare(statement) or ""
    if len(text) > _LONG or not _words(text) or (len(text) > _LONG // 2 and ". " in text):
        return text
    instead = _INSTEAD.fullmatch(text)
    if instead:
        return distil(instead.group(1) or instead.group(2))
    answered = _YES_NO.fullmatch(text)
    if answered and _agrees(answered.group(1).lower(), answered.group(2)):
        return answered.group(1)
    text = _REASON.sub("", text) or text
    for _ in range(4):
        bold = _BOLD.findall(text)
        if len(bold) == 1 and _VALUE.search(bold[0]) and not stands_against(text):
            return bare(bold[0]) or text
        clause = _first_clause(text)
        said = predicate(clause)
        if said is None and stands_against(clause):
            return text
        shorter = _CLOSE.sub("", said or clause)
        lead = _LEAD.match(shorter)
        shorter = shorter[lead.end() :] if lead and shorter[lead.end() :].strip() else shorter
        shorter = bare(shorter) or text
        if shorter == text:
            break
        text = shorter
    return text
