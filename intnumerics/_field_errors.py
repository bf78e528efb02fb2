"""The error for a call of `IntNumerics` with too few or unknown fields."""

import dataclasses
import functools
from typing import Any, TypeVar

from ._error_values import shown

_T = TypeVar("_T")


def explains_missing_fields(cls: type[_T]) -> type[_T]:
    """A class decorator: a call with too few or unknown fields gets an error with the fields and a shorter way."""
    init: Any = cls.__init__

    @functools.wraps(init)
    def checked_init(self: Any, *values: Any, **fields: Any) -> None:
        try:
            init(self, *values, **fields)
        except TypeError as error:
            if error.__traceback__ and error.__traceback__.tb_next:  # an error of `__post_init__`
                raise
            names = ", ".join(field.name for field in dataclasses.fields(self))
            bits = shown(values[0] if values else fields.get("bits", 8))
            raise TypeError(
                f"{error}: write IntNumerics.symmetric({bits}) for the usual numerics, with any field by name; here, "
                f"as in FJFormer, the first seven of {names} have no defaults"
            ) from None

    setattr(cls, "__init__", checked_init)  # noqa: B010
    return cls
