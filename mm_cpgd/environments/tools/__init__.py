"""Tools that come with the project.

Each is safe by construction: no code of the model runs, and the tool itself bounds pixels, memory and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mm_cpgd.environments.registry import find_named
from mm_cpgd.environments.tool import Tool
from mm_cpgd.environments.tools.calculate import calculator
from mm_cpgd.environments.tools.look import compare, image_zoom_in_tool, rotate, zoom
from mm_cpgd.environments.tools.mark import draw_box, draw_line
from mm_cpgd.environments.tools.measure import measure_distance, read_colour
from mm_cpgd.environments.tools.table import lookup
from mm_cpgd.environments.tools.watch import frame_at
from mm_cpgd.errors import UserError

TOOLS: dict[str, Tool] = {
    function.__name__: Tool(function)
    for function in (
        zoom,
        rotate,
        compare,
        draw_line,
        draw_box,
        measure_distance,
        read_colour,
        calculator,
        lookup,
        image_zoom_in_tool,
        frame_at,
    )
}


def named_tools(tools: Sequence[Any]) -> dict[str, Tool]:
    """Return tools by name.

    Args:
        tools: names, ``path/to/file.py:function``, functions, or ``Tool`` objects.

    Raises:
        UserError: none, two of one name, or one that cannot be loaded or is no tool.
    """
    if isinstance(tools, str) or not tools:
        raise UserError(f"tools is {tools!r}; give a list of at least one, such as [zoom]")
    found: dict[str, Tool] = {}
    for one in tools:
        tool = as_tool(find_named("tool", one, TOOLS)[1] if isinstance(one, str) else one)
        if tool.name in found:
            raise UserError(
                f"two tools have the name {tool.name!r}; give one another: Tool(function, name=…)"
            )
        found[tool.name] = tool
    return found


def as_tool(value: Any) -> Tool:
    """Return a function or ``Tool`` as a tool. Raises ``UserError`` if it is none."""
    if not callable(value):
        raise UserError(f"a tool is {value!r}; allowed: a name, a function or a Tool")
    tool = value if isinstance(value, Tool) else _tool_of(value)
    tool.signature  # noqa: B018  reads and checks it
    return tool


@lru_cache(maxsize=256)
def _tool_of(function: Any) -> Tool:
    """Return the tool of a function, one for all conversations: reading a signature takes milliseconds."""
    return Tool(function)
