"""Tool calls in text: both forms, everything malformed, and time that is linear in the text."""

from __future__ import annotations

import json
import time

import pytest

from mm_cpgd.environments.call_formats import (
    MAX_CALLS,
    ParsedCall,
    find_calls,
    format_of,
    instructions,
    takes_tools,
    without_reasoning,
    write_call,
)

ARGUMENTS = {"box": [1, 2.5, 3, 4], "label": 'a "b"\nc', "deep": {"x": [True, None]}}


def test_the_json_form_is_read_as_it_is_written() -> None:
    text = f"I look.\n{write_call('zoom', ARGUMENTS)}\nand\n{write_call('rotate', {})}"
    assert find_calls(text) == [ParsedCall("zoom", ARGUMENTS), ParsedCall("rotate", {})]


def test_the_xml_form_holds_texts() -> None:
    (call,) = find_calls(write_call("zoom", ARGUMENTS, "xml"))
    assert call.name == "zoom"
    assert call.in_texts
    assert call.arguments["label"] == ARGUMENTS["label"]
    assert json.loads(call.arguments["box"]) == ARGUMENTS["box"]
    assert json.loads(call.arguments["deep"]) == ARGUMENTS["deep"]


def test_calls_inside_of_the_reasoning_are_no_calls() -> None:
    call = write_call("zoom", {})
    assert find_calls(f"<think>{call}</think>{call}") == [ParsedCall("zoom", {})]
    assert find_calls(f"the prompt opened it {call}</think>done") == []
    # An unclosed thought hides nothing: the model has begun to act.
    assert len(find_calls(f"<think>{call}")) == 1
    assert without_reasoning("a<think>b</think>c<think>d</think>e") == "ace"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "empty"),
        ("zoom", "not JSON"),
        ('{"name": "zoom", "arguments": {"a": NaN}}', "NaN is not a number"),
        ('{"name": "zoom", "arguments": {"a": -Infinity}}', "-Infinity is not a number"),
        ('{"name": "zoom", "arguments": {"a": ' + "9" * 5000 + "}}", "not JSON"),
        ('{"name": "zoom"} {"name": "zoom"}', "Extra data"),
        ('[{"name": "zoom"}, {"name": "zoom"}]', "one call in each tag"),
        ('{"name": 3}', "no name"),
        ('{"arguments": {}}', "no name"),
        ('{"name": "zoom", "arguments": [1]}', "not a JSON object"),
        ('{"name": "zoom", "arguments": "[1]"}', "not a JSON object"),
        ('{"name": "zoom", "arguments": "{"}', "not JSON"),
        ('{"name": "zoom", "arguments": ' + "[" * 9_000, "nested too deeply"),
        (" " * 30_000, "at most 20,000"),
        ("<function=>", "no name"),
        ("<function=zoom", "no name"),
        ("<function=zoom>", "not closed"),
        ("<function=zoom></function><function=zoom></function>", "one call in each tag"),
        ("<function=zoom>text</function>", "is no <parameter=NAME>"),
        ("<function=zoom><parameter=box>1</function>", "not closed"),
    ],
)
def test_a_malformed_call_has_a_problem(body: str, problem: str) -> None:
    (call,) = find_calls(f"<tool_call>{body}</tool_call>")
    assert problem in call.problem
    assert len(call.problem) < 250


def test_arguments_may_be_json_in_a_text() -> None:
    (call,) = find_calls('<tool_call>{"name": "zoom", "arguments": "{\\"a\\": 1}"}</tool_call>')
    assert call == ParsedCall("zoom", {"a": 1})


def test_tags_that_do_not_match_are_malformed_calls() -> None:
    good = write_call("zoom", {})
    problems = [call.problem for call in find_calls(f"</tool_call> <tool_call> {good} <tool_call>{{")]
    assert problems == [
        "</tool_call> without <tool_call> before it",
        "<tool_call> is not closed by </tool_call>",
        "",
        "<tool_call> is not closed by </tool_call>",
    ]


@pytest.mark.parametrize(
    "piece",
    [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        "<think></think>",
        "</think><think>",
        "<tool_call>{",
    ],
)
def test_long_texts_are_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    found = find_calls(piece * 200_000)
    assert time.process_time() - started < 5
    assert len(found) <= MAX_CALLS


def test_the_form_of_a_chat_template_is_recognised() -> None:
    assert format_of("{{ '<tool_call>' }}") == "json"
    assert format_of("<tool_call>\n<function=example>") == "xml"
    assert format_of("{{ message.content }}") is None
    assert takes_tools("{%- if tools %}{{ tools }}{% endif %}")
    assert takes_tools("{% for tool in tools %}{% endfor %}")
    assert not takes_tools("{{ message.tools_used }}")


@pytest.mark.parametrize("form", ["json", "xml"])
def test_the_instructions_hold_each_schema_on_a_line(form: str) -> None:
    schemas = [{"type": "function", "function": {"name": name}} for name in ("zoom", "rotate")]
    text = instructions(schemas, form)
    lines = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in lines] == schemas
    assert text.endswith("</tool_call>")
