"""RTL beside the kernels: cycles and sums held equal, energy from gates.

`validate_rtl` runs the same masks through SystemVerilog and the numba kernels.
"""

from .validate import validate_rtl

__all__ = ["validate_rtl"]
