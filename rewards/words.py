"""Cut a text into the words that captions and lengths are measured in."""

from __future__ import annotations

import re
import unicodedata

# Written without spaces: each sign is a word of its own.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(
    rf"[0-9]+(?:[.,][0-9]+)+|[{_SIGN}]|(?:(?![{_SIGN}])[^\W_])+(?:['’](?:(?![{_SIGN}])[^\W_])+)*"
)


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, punctuation dropped; each Chinese sign is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
