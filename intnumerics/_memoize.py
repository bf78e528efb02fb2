"""Results that are kept, for what a call without `jit` would otherwise find out each time."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def memoized(function: _Function) -> _Function:
    """Keeps the results for arguments that can be hashed; an error is raised anew."""
    kept = functools.lru_cache(1024)(function)

    @functools.wraps(function)
    def look_up(*arguments: Any) -> Any:
        try:
            return kept(*arguments)
        except TypeError:  # an argument cannot be hashed, or the function raised, which it then does again
            return function(*arguments)

    return cast(_Function, look_up)
