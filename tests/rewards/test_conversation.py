"""Text of a conversation: a string for rules of one turn, with its turns for others."""

from __future__ import annotations

import pickle

from rewards import ConversationText, turns_of


def test_it_is_the_last_turn_and_knows_the_others() -> None:
    text = ConversationText.of([("look", "a crop"), ("it is 3", "")])
    assert text == "it is 3"
    assert [turn.text for turn in text.turns] == ["look", "it is 3"]
    assert text.turns[0].observed == "a crop"


def test_it_reaches_the_process_of_a_rule() -> None:
    text = ConversationText.of([("look", "a crop"), ("it is 3", "")])
    copy = pickle.loads(pickle.dumps(text))
    assert (copy, copy.turns) == (text, text.turns)


def test_a_plain_completion_is_one_turn() -> None:
    assert [tuple(turn) for turn in turns_of("it is 3")] == [("it is 3", "")]
    assert turns_of(ConversationText.of([])) == turns_of("")
