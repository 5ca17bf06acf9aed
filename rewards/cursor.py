"""A place in a list of tokens, and the count of what has been built from them."""

from __future__ import annotations

from rewards.bounds import MAX_NODES, Refused, Unreadable
from rewards.tokens import Token
from rewards.tree import Node

_END = Token("end", "")


class Cursor:
    """Moves through tokens and makes nodes, at most ``MAX_NODES`` of them."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.nodes = 0
        self.bars = 0  # how many absolute values are open in the innermost bracket

    def peek(self, ahead: int) -> Token:
        """The token so many places on; one of kind ``end`` past the last."""
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else _END

    @property
    def next(self) -> Token:
        """The token to be read."""
        return self.peek(0)

    def take(self) -> Token:
        """Read one token."""
        token = self.next
        self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        """Read the next token if it is one of these."""
        if self.next.kind not in ("num", "end") and self.next.text in texts:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Read this token. Raises ``Unreadable`` if the next is another."""
        if not self.accept(text):
            raise Unreadable(f"{text!r} expected, {self.next.text or 'the end'!r} found")

    def node(self, op: str, *args: Node, name: str = "") -> Node:
        """Build a node. Raises ``Refused`` past the bound."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} operations")
        return Node(op, args, name=name)
