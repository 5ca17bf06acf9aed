"""Words by which a sentence denies, bounds, doubts or takes back the value that it names.

A value is taken from a sentence only if the sentence asserts it: "it is not 2", "fewer than 2", "2 or 3",
"by Theorem 2" and "I cannot determine h(2)" do not say 2.
"""

from __future__ import annotations

import re

_NEGATION = re.compile(
    r"\b(?:not|never|cannot|neither|nor|without|except|excluding|excludes|unlike|incorrect|wrong|false|invalid|"
    r"impossible|opposite|contrary|non|nobody|whether|refute[sd]?|"
    r"rules? out|ruled out|eliminate[sd]?|no longer|"
    r"other than|rather than|instead of|"
    r"anything but|far from|ain't|[a-z]{2,6}n['’]t)\b|\\(?:ne|neq|not|neg|lnot)(?![a-zA-Z])|[≠¬]|!="
    r"|不是|不等于|并非|绝非|不可能|不能|不对|不為|不为|不選|不选|错误|錯誤|排除|没有|除了|而非",
    re.IGNORECASE,
)
# A denied value is followed by the asserted one: "it is not 10, it is 12".
_ASSERTED = re.compile(
    r"\b(?:is|are|was|it's|that's|but|rather|instead|equals?|should be|must be)\b|而是|应为|应该是|=",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    r"\b(?:fewer|less|lesser|more|greater|larger|smaller|bigger|higher|lower|longer|shorter|older|younger)\s+than\b"
    r"|\b(?:exceeds?|exceeding|surpass(?:es)?|at\s+(?:least|most)|up\s+to|no\s+(?:more|fewer|less)|between|"
    r"close\s+to|nearly|almost|below|above|under|over|beyond|within|minimum\s+of|maximum\s+of|"
    r"bounded\s+by|multiple\s+of|divisible\s+by|factor\s+of)\b"
    r"|小于|大于|少于|多于|低于|高于|至少|至多|最多|最少|不超过|不少于|超过|接近|介于",
    re.IGNORECASE,
)
_COMPARED_AFTER = re.compile(
    r"^\s*(?:\w+\s+){0,1}(?:or\s+(?:more|less|fewer|so|greater)|at\s+(?:least|most)|and\s+(?:above|below|up|over)|"
    r"(?:more|less|fewer|greater|smaller)\b|以上|以下|以内|左右)",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"\b(?:half|third|quarter|twice|double|triple|square|cube|root|sum|product|difference|quotient|times|plus|"
    r"minus|divided|multiplied|reciprocal|inverse|negative|opposite|complement)\s+(?:by\s+|of\s+)?(?:the\s+)?$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"\b(?:theorems?|lemma|corollary|proposition|figures?|fig\.?|steps?|cases?|parts?|pages?|sections?|"
    r"equations?|eqs?\.?|problems?|questions?|tables?|chapters?|examples?|schemes?|methods?|statements?|rules?|"
    r"axioms?|definitions?|no\.|options?|choices?|exercises?)\s*[(#]?\s*$"
    r"|(?:定理|图|步骤|方案|第|题|公式|式|表|例)\s*[(（]?\s*$",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:maybe|perhaps|possibly|might|could\s+be|may\s+be|either|guess(?:ing)?|not\s+sure|unsure|"
    r"uncertain|otherwise|unless|if\s+not)\b|可能|也许|或者?|大概|要么|否则",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:if|whether|nobody|no\s+one|who\s+knows|unclear|unknown)\b[^,;]*$|^\s*(?:is|are|was|could|can|does)\b",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[\s$)*]*(?:is|are|was|were|would\s+be|cannot|can['’]t|isn['’]t|does|doesn['’]t|seems?)\b\s*(?:be\s+|clearly\s+|definitely\s+|obviously\s+)?"
    r"(?:(?:not|never|wrong|incorrect|false|impossible|invalid|excluded|ruled)\b|(?<=n['’]t\s)|(?<=cannot\s))|\s*[✗✘❌]|\s*(?:不对|错|錯|不是)",
    re.IGNORECASE,
)
_WRONG_SOON = re.compile(r"[^.;,\n]{0,30}\b(?:is|are)\s+(?:wrong|incorrect|false)\b", re.IGNORECASE)
_SUBJECT_WORDS = 5
_IS_LAST = re.compile(r"\b(?:is|are)\W*$")
_THINKING = re.compile(
    r"\b(?:that|think|believe|say|mean|sure|true|correct|right|likely|case)\b", re.IGNORECASE
)
_OR_BEFORE = re.compile(r"\bor\s+(?:\w+\s+)?[$(]?$", re.IGNORECASE)
_OR_AFTER = re.compile(r"^[^.;\n]{0,25}\bor\b", re.IGNORECASE)
# A clause that ends the scope of a negation before it: "there is no picture, so it is".
_NEW_CLAUSE = re.compile(
    r"[,;:，；]\s|\b(?:but|so|therefore|thus|hence|rather|instead)\b|而是", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(?:can(?:not|'t|’t| not)|could\s*n[o'’]t|unable\s+to|impossible\s+to|not\s+possible\s+to|"
    r"no\s+way\s+to)\s+"
    r"(?:be\s+)?(?:accurately\s+|reliably\s+|exactly\s+|definitively\s+)?(?:determine|tell|answer|find|solve|say|compute|calculate|help|know|"
    r"identif|see|view|process|provide|conclude|evaluate)"
    r"|\bdo(?:es)?\s*n[o'’]t\s+(?:provide|give|contain|include|offer|have)\s+(?:(?:enough|sufficient)\b|any\s+information)"
    r"|\b(?:insufficient|not\s+enough)\s+(?:information|data)|\bi\s+(?:do\s*n[o'’]t|do\s+not)\s+know\b"
    r"|无法(?:确定|回答|求|计算|判断)|不能(?:确定|判断)|不知道|条件不足",
    re.IGNORECASE,
)
_DENIAL = (
    r"on\s+second\s+thoughts?|correction\b|scratch\s+that|strike\s+that|disregard\s+that|"
    r"(?:oops|sorry|apolog(?:y|ies))\b|i\s+(?:made|have\s+made)\s+(?:a|an)\s+(?:mistake|error)|i\s+was\s+wrong|i\s+take\s+(?:that|it)\s+back|"
    r"(?:that|this|it|which)(?:['’]s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct)|a\s+mistake)|"
    r"(?:wait|hold\s+on|hmm|actually|well|oh)\W{0,4}\s*no\b|no\s*[,.!—–-]+\s*(?:wait|it(?:['’]s|\s+is)|that(?:['’]s|\s+is)|this\s+is|actually|"
    r"the\s+(?:correct\s+|right\s+|final\s+)?answer|i\s)|"
    r"不对|更正|我错了|等等"
)
_AMENDMENT = (
    r"(?:wait|hold\s+on|hmm|actually|rather|or\s+rather|i\s+mean|i\s+meant|in\s+fact|let\s+me\s+correct)\b\W{0,4}\s*"
    r"(?:i\s+think\s+)?(?:that\s+|the\s+(?:final\s+|correct\s+|right\s+|real\s+)?answer\s+|it\s*|this\s+|answer\s+)?"
    r"(?:(?:['’]s|is|was|should\s+be|must\s+be|would\s+be|equals)\s+(?!correct|right|indeed|consistent|true\s+that|what)|(?=[-\d$\\(]))"
)
_RETRACTION = re.compile(
    rf"(?:^|(?<=[\s.,;:!?(。！—–-]))(?:(?P<denial>{_DENIAL})|(?P<amendment>{_AMENDMENT}))", re.IGNORECASE
)
_RETRACTION_HINT = re.compile(
    r"wait|hold on|hmm|actually|rather|mean|in fact|let me|second|correction|scratch|strike|disregard|oops|"
    r"sorry|apolog|mistake|error|wrong|incorrect|not right|not correct|\bno\b|back|不对|更正|我错|等等",
    re.IGNORECASE,
)
_OPERATOR_BEFORE = re.compile(r"[+*/^×÷·<>≠≤≥_]\s*$|\w\s-\s?$|\d\s*:\s*$|\bout\s+of\s+$")
_OPERATOR_AFTER = re.compile(
    r"\s*[+*/^×÷·](?!\*)\s*[\w\\($]|\s-\s[\w\\($]|\s*:\s*\d|\s+out\s+of\b|\s*(?:-|–|to|through|~)\s*\d|\s*[<>≤≥]"
    r"|\s+and\s+(?:a\s+|one\s+|two\s+|three\s+)?(?:half|third|quarter)",
    re.IGNORECASE,
)


def refuses(sentence: str) -> bool:
    """Return whether a sentence declines to answer: "it cannot be determined", "not enough information"."""
    return _REFUSAL.search(sentence) is not None


def denies(text: str) -> bool:
    """Return whether a text contains a word of negation."""
    return _NEGATION.search(text) is not None


def doubts(text: str) -> bool:
    """Return whether a text offers alternatives or doubts itself: "maybe", "2 or 3", "if not"."""
    return _DOUBT.search(text) is not None


def compared_before(before: str) -> bool:
    """Return whether a comparison ends ``before``: "fewer than", but not "the primes less than 20 are"."""
    comparisons = list(_COMPARISON.finditer(before))
    if not comparisons:
        return False
    between = before[comparisons[-1].end() :]
    return not re.search(r"\d|\b(?:is|are|was|were|equals)\b|[=，,是为]", between)


def compares(text: str) -> bool:
    """Return whether a text bounds a value instead of naming it: "at least 2"."""
    return _COMPARISON.search(text) is not None


def denied_before(before: str) -> bool:
    """Return whether the last negation of ``before`` applies to what follows it.

    In "it is not 10, it is" the negation has its value, and the next one is asserted.
    """
    negations = list(_NEGATION.finditer(before))
    if not negations:
        return False
    between = before[negations[-1].end() :]
    if _NEW_CLAUSE.search(between) or _negates_its_subject(between):
        return False
    value = re.search(r"\d|\([A-Z]\)|\b[A-J]\b", between)
    return not (value and _ASSERTED.search(between, value.end()))


def _negates_its_subject(between: str) -> bool:
    """Return whether a negation belongs to the subject: "the one that could NOT be folded into a cube is"."""
    long = len(between.split()) >= _SUBJECT_WORDS and _IS_LAST.search(between) is not None
    return long and not _THINKING.search(between)


def unasserted_before(before: str) -> bool:
    """Return whether what follows ``before`` in its sentence is denied or left open: "nobody knows if"."""
    return denied_before(before) or refuses(before) or _OPEN.search(before) is not None


def denied_after(after: str) -> bool:
    """Return whether what precedes ``after`` in its sentence is denied: "is incorrect", "cannot be right"."""
    return _DENIED_AFTER.match(after) is not None


def asserts(number: re.Match[str]) -> bool:
    """Return whether the sentence in which ``number`` was found states it as a value.

    False where it is denied, bounded, doubted, an operand, part of a ratio or range, or names something else:
    "not 2", "at least 2", "2 or 3", "158 + LK", "2:40", "Theorem 2".
    """
    before, after = number.string[: number.start()], number.string[number.end() :]
    if _OPERATOR_BEFORE.search(before) or _OPERATOR_AFTER.match(after):
        return False
    if denied_after(after) or _WRONG_SOON.match(after) or number.string.rstrip().endswith("?"):
        return False
    if _REFERENCE.search(before[-40:]) or _OPERATION.search(before[-60:]) or _COMPARED_AFTER.match(after):
        return False
    if (
        _OR_BEFORE.search(before[-30:])
        or _OR_AFTER.match(after)
        or doubts(before[-80:])
        or doubts(after[:80])
    ):
        return False
    return not (denied_before(before[-160:]) or compared_before(before[-60:]) or refuses(number.string))


def retraction(text: str, start: int) -> tuple[int, bool] | None:
    """Return where the last retraction after ``start`` ends and whether it is a plain denial, or None.

    "Wait, no", "correction", "that is wrong" deny what was said before; "actually, it is" replaces it.
    """
    if not _RETRACTION_HINT.search(text, start):
        return None
    last = None
    for match in _RETRACTION.finditer(text, start):
        last = match
    return (last.end(), last["denial"] is not None) if last else None
