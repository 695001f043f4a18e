"""The board that torch computes on, among those that NVML lists: the two number them differently.

``CUDA_VISIBLE_DEVICES`` hides and reorders boards for CUDA, and CUDA sorts them by speed unless
``CUDA_DEVICE_ORDER=PCI_BUS_ID``; NVML always lists all, by PCI bus. So a board is found by its UUID or PCI address as
torch reports it; an index is trusted only where both must mean the same.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ..errors import UnavailableError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


def computing_board(nvml: Any) -> Any:
    """Return NVML's handle of the board that torch's current device is.

    Parameters
    ----------
    nvml : module
        pynvml, initialised.

    Raises
    ------
    UnavailableError
        If it cannot be told, or is a slice of a board, whose energy NVML does not count apart.
    """
    try:
        handle = _of_torch(nvml)
        if handle is None:
            handle = _of_environment(nvml)
        _whole(nvml, handle)
    except nvml.NVMLError as error:
        raise UnavailableError(f"NVML does not know the board that torch computes on: {error}") from None
    return handle


def _of_torch(nvml: Any) -> Any | None:
    """Find the board by what torch reports of its current device; None where torch has no CUDA device."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(torch.cuda.current_device())
    slice_of = os.environ.get(VISIBLE, "").strip()
    if slice_of.startswith("MIG-"):
        raise _sliced(slice_of)
    uuid = getattr(facts, "uuid", None)
    if uuid is not None:
        text = str(uuid)
        return _by_uuid(nvml, text if text.startswith("GPU-") else f"GPU-{text}")
    if hasattr(facts, "pci_bus_id"):
        domain, bus, slot = (int(getattr(facts, f"pci_{part}_id", 0)) for part in ("domain", "bus", "device"))
        return nvml.nvmlDeviceGetHandleByPciBusId(f"{domain:08x}:{bus:02x}:{slot:02x}.0")
    raise UnavailableError(
        "this torch reports neither UUID nor PCI address of its GPU, so NVML's board cannot be told; update torch"
    )


def _of_environment(nvml: Any) -> Any:
    """Find the board that CUDA would take first, where torch cannot be asked."""
    text = os.environ.get(VISIBLE)
    boards = int(nvml.nvmlDeviceGetCount())
    if text is None:
        if boards == 1:
            return nvml.nvmlDeviceGetHandleByIndex(0)
        raise UnavailableError(
            f"NVML lists {boards} boards and torch sees no CUDA device, so the one that computes cannot be told; "
            f"set {VISIBLE} to its UUID (nvidia-smi -L)"
        )
    first = text.split(",")[0].strip()
    if first.startswith("MIG-"):
        raise _sliced(first)
    if first.startswith("GPU-"):
        return _by_uuid(nvml, first)
    if not first.isdecimal() or int(first) >= boards:
        raise UnavailableError(
            f"{VISIBLE}='{text}' shows CUDA no board (NVML lists {boards}); unset it, or name a board's UUID"
        )
    if boards == 1 or os.environ.get(ORDER) == "PCI_BUS_ID":
        return nvml.nvmlDeviceGetHandleByIndex(int(first))
    raise UnavailableError(
        f"{VISIBLE}='{text}' counts {boards} boards in CUDA's order, which may not be NVML's; name the board's UUID "
        f"(nvidia-smi -L), or set {ORDER}=PCI_BUS_ID"
    )


def _by_uuid(nvml: Any, uuid: str) -> Any:
    """Find a board by its UUID, or by the beginning of it, which CUDA takes as well."""
    named = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(int(nvml.nvmlDeviceGetCount()))]
    found = [handle for handle in named if text_of(nvml.nvmlDeviceGetUUID(handle)).lower().startswith(uuid.lower())]
    if len(found) != 1:
        raise UnavailableError(
            f"torch computes on '{uuid}', which is {'none' if not found else 'more than one'} of the {len(named)} "
            "boards that NVML lists; NVML gives no energy here"
        )
    return found[0]


def _whole(nvml: Any, handle: Any) -> None:
    ask = getattr(nvml, "nvmlDeviceGetMigMode", None)
    if ask is None:
        return
    try:
        current, _ = ask(handle)
    except nvml.NVMLError:  # a board without the mode
        return
    if current:
        raise _sliced(text_of(nvml.nvmlDeviceGetUUID(handle)))


def _sliced(name: str) -> UnavailableError:
    return UnavailableError(
        f"'{name}' is a MIG slice, or a board divided into such: NVML counts energy of the whole board only; measure "
        "on one that is not divided"
    )


def text_of(value: object) -> str:
    """Decode what older bindings return as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
