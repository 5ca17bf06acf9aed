"""Options of the functions that a config names: checked against the signature, and converted to its types."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from mm_cpgd.errors import UserError
from rewards.messages import nearest


def checked_options(
    where: str, function: Callable[..., Any], options: Mapping[str, Any], skip: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the options, each converted to its parameter's type.

    Args:
        where: name of the function in messages.
        function: its parameters are the options.
        options: by name.
        skip: parameters that are no options.

    Raises:
        UserError: an option is unknown (the nearest is named), missing, or of the wrong type.
    """
    parameters = {key: p for key, p in inspect.signature(function).parameters.items() if key not in skip}
    named = {key: p for key, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in named and not takes_any:
            raise UserError(
                f"{where} has no option {key!r}: {nearest(key, named) if named else 'it takes none'}"
            )
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in options:
            raise UserError(f"{where} needs the option {key!r}; write it under options")
    hints = _hints(function)
    return {key: _converted(where, key, value, hints.get(key, Any)) for key, value in options.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):  # types that exist for the type checker only
        return {}


def _converted(where: str, key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise UserError(f"{where}: option {key!r} is {value!r}, which is not possible: {message}") from error
    except PydanticUserError:  # a class of the user, which pydantic cannot check
        return value
