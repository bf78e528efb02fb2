"""What every numerics offers, and the context that it is called with."""

import abc
import dataclasses
from typing import Any

import jax
from jax.typing import DTypeLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a numerics may need beside the array; a pytree.

    Attributes:
        key: The key that a noise function draws from: typed (`jax.random.key`) or legacy uint32, or None.
        train_step: The training step, for numerics that depend on it, or None. Integer numerics do not.

    Example:
        >>> import jax
        >>> Context(key=jax.random.key(0)).train_step is None
        True
    """

    key: jax.Array | None = None
    train_step: int | jax.Array | None = None

    def replace(self, **changes: Any) -> "Context":
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)


class QNumerics(abc.ABC):
    """Abstract base of all numerics.

    Source: `QNumerics` in FJFormer (`fjformer/bits/numerics.py`).
    """

    @abc.abstractmethod
    def get_dtype(self) -> DTypeLike | None:
        """The dtype that quantized values are to be stored in, or None."""

    @abc.abstractmethod
    def abs_val_mapped_to(self) -> float:
        """The end of the quantization range, in buckets: what the largest magnitude of x should be scaled to."""

    @abc.abstractmethod
    def fwd(self, x: jax.Array, context: Any) -> jax.Array:
        """Quantizes x."""

    @abc.abstractmethod
    def vjp_fwd(self, x: jax.Array, context: Any) -> tuple[jax.Array, Any]:
        """Quantizes x, and returns what `vjp_bwd` needs as well."""

    @abc.abstractmethod
    def vjp_bwd(self, residual: Any, grad: jax.Array) -> tuple[jax.Array, None]:
        """The cotangents of x and of the context from that of the result."""
