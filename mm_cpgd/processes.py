"""What one process does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from mm_cpgd.errors import USER_ERRORS

Result = TypeVar("Result")


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Run ``work`` on the main process alone and return its result, which must be picklable, on all.

    A user's error is raised on all of them; otherwise the others would wait for a process that is gone.
    """
    result: Any = None
    problem: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = work()
        except USER_ERRORS as error:
            problem = error
    result, problem = broadcast_object_list([result, problem])
    if problem is not None:
        raise problem
    return cast(Result, result)
