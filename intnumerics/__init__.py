"""Integer-quantization numerics for JAX: one fused pass on GPU and TPU, the same bits everywhere."""

from . import kernels as kernels
from ._absmax_scale import absmax_scale as absmax_scale
from ._calibration import AbsMax as AbsMax
from ._calibration import Fixed as Fixed
from ._export_serialization import register as _register
from ._qtensor import QTensor as QTensor
from ._quantize import MASK as MASK
from ._quantize import VALUES as VALUES
from ._quantize import quantize as quantize
from ._quantize_tensor import quantize_tensor as quantize_tensor
from ._quantize_to_int import from_int as from_int
from ._quantize_to_int import quantize_to_int as quantize_to_int
from ._version import __version__ as __version__
from .int_numerics import IntNumerics as IntNumerics
from .numerics import Context as Context
from .numerics import QNumerics as QNumerics
from .stochastic_rounding import HardwareUniform as HardwareUniform
from .stochastic_rounding import HashUniform as HashUniform
from .stochastic_rounding import JaxUniform as JaxUniform
from .stochastic_rounding import NoiseFn as NoiseFn
from .stochastic_rounding import PhiloxUniform as PhiloxUniform
from .stochastic_rounding import RandomCenteredUniform as RandomCenteredUniform

_register()

__all__ = [
    "MASK",
    "VALUES",
    "AbsMax",
    "Context",
    "Fixed",
    "HardwareUniform",
    "HashUniform",
    "IntNumerics",
    "JaxUniform",
    "NoiseFn",
    "PhiloxUniform",
    "QNumerics",
    "QTensor",
    "RandomCenteredUniform",
    "absmax_scale",
    "from_int",
    "quantize",
    "quantize_tensor",
    "quantize_to_int",
]
