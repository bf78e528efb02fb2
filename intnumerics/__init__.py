"""Integer-quantization numerics for JAX: one fused pass on GPU and TPU, the same bits everywhere."""

from . import kernels as kernels
from .int_numerics import IntNumerics as IntNumerics
from .numerics import Context as Context
from .numerics import QNumerics as QNumerics
from .quantize import from_int as from_int
from .quantize import quantize as quantize
from .quantize import quantize_to_int as quantize_to_int
from .stochastic_rounding import NoiseFn as NoiseFn

__version__ = "0.1.0"
