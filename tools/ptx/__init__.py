"""Runs PTX, what compilers for CUDA make before `ptxas` does, on a CPU: an interpreter in NumPy.

It follows NVIDIA's manual, "Parallel Thread Execution ISA". What it does not know raises.
"""

from .dump import Kernel as Kernel
from .errors import AccessError as AccessError
from .errors import DeadlockError as DeadlockError
from .errors import Error as Error
from .errors import RaceError as RaceError
from .errors import UnsupportedError as UnsupportedError
from .machine import Execution as Execution
from .machine import Step as Step
from .program import UNWRITTEN as UNWRITTEN
from .program import Program as Program
from .program import compile as compile
from .running import run as run
