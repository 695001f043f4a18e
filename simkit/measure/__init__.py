"""Measuring on real devices: kernels under test, meters, campaigns, bundles, and measurements of others.

Nothing here imports torch, Triton or NVML until it is needed, so a machine without a GPU runs everything else.
"""

from .bundle import bundle_path, read_bundle, write_bundle
from .campaigns import measure, pending
from .formats import import_file
from .points import CAMPAIGNS

__all__ = ["CAMPAIGNS", "bundle_path", "import_file", "measure", "pending", "read_bundle", "write_bundle"]
