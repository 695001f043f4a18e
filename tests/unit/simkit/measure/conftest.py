"""Triton's interpreter is chosen when a kernel is decorated, so before any test module imports one."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
