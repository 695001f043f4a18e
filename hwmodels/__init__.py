"""Cycle and energy models of accelerators, fed by packed masks. Imports neither torch nor a sibling package.

`__all__` is public; so are `hwmodels.registry` and `hwmodels.counting`, on which kernels of other packages build. Other
modules are private by convention.

>>> op = hwmodels.Op("down", 0, m=4, k=64, n=16, activation=hwmodels.PackedMask.bernoulli(4, 64, 0.25, seed=0))
>>> hwmodels.simulate(op, hwmodels.load_arch("cnvlutin")).cycles
24
"""

from .arch import Arch, arch_from_yaml, diff, list_archs, load_arch
from .counts import Compute, Counts
from .energy import EnergyTable, list_tables, load_table
from .errors import InputError
from .kernel import Kernel
from .mask import Mask, OnesMask, PackedMask
from .op import Op
from .registry import register, simulate
from .vector import simulate_vector

__all__ = [
    "Arch",
    "Compute",
    "Counts",
    "EnergyTable",
    "InputError",
    "Kernel",
    "Mask",
    "OnesMask",
    "Op",
    "PackedMask",
    "arch_from_yaml",
    "diff",
    "list_archs",
    "list_tables",
    "load_arch",
    "load_table",
    "register",
    "simulate",
    "simulate_vector",
]
