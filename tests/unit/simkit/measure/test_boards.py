"""NVML's board is torch's, however CUDA numbers it; what cannot be told is refused."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from simkit.errors import UnavailableError
from simkit.measure.boards import computing_board

UUIDS = ("GPU-00aa", "GPU-11bb", "GPU-22cc", "GPU-22dd")


class _NvmlError(Exception):
    pass


def nvml(boards: int = 4, mig: int | None = None) -> Any:
    """NVML with some boards; their handles are their indices."""

    def mig_mode(handle: int) -> list[int]:
        if mig is None:
            raise _NvmlError("not supported")
        return [int(handle == mig), int(handle == mig)]

    def by_address(address: str) -> int:
        if address != "00000000:1b:00.0":
            raise _NvmlError("not found")
        return 3

    return SimpleNamespace(
        NVMLError=_NvmlError,
        nvmlDeviceGetCount=lambda: boards,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: UUIDS[handle].encode(),  # older bindings give bytes
        nvmlDeviceGetHandleByPciBusId=by_address,
        nvmlDeviceGetMigMode=mig_mode,
    )


def use_torch(monkeypatch: pytest.MonkeyPatch, *devices: SimpleNamespace, current: int = 0) -> None:
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(
        is_available=lambda: bool(devices),
        current_device=lambda: current,
        get_device_properties=lambda index: devices[index],
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


@pytest.mark.parametrize("visible", ["3", "2,0", "GPU-11bb", None])
def test_the_board_is_the_one_whose_uuid_torch_reports(visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    use_torch(monkeypatch, SimpleNamespace(uuid="11bb"))
    assert computing_board(nvml()) == 1
    use_torch(monkeypatch, SimpleNamespace(uuid="11bb"), SimpleNamespace(uuid="00aa"), current=1)
    assert computing_board(nvml()) == 0


def test_an_older_torch_is_asked_for_the_pci_address(monkeypatch: pytest.MonkeyPatch) -> None:
    use_torch(monkeypatch, SimpleNamespace(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0))
    assert computing_board(nvml()) == 3
    use_torch(monkeypatch, SimpleNamespace(pci_domain_id=0, pci_bus_id=0x99, pci_device_id=0))
    with pytest.raises(UnavailableError, match="NVML does not know the board that torch computes on: not found"):
        computing_board(nvml())
    use_torch(monkeypatch, SimpleNamespace())
    with pytest.raises(UnavailableError, match="neither UUID nor PCI address"):
        computing_board(nvml())


def test_a_board_that_nvml_does_not_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_torch(monkeypatch, SimpleNamespace(uuid="ffff"))
    with pytest.raises(UnavailableError, match="'GPU-ffff', which is none of the 4 boards"):
        computing_board(nvml())


@pytest.mark.parametrize(
    ("visible", "order", "boards", "board"),
    [
        (None, None, 1, 0),
        ("0", None, 1, 0),
        ("3", "PCI_BUS_ID", 4, 3),
        (" 2 , 0", "PCI_BUS_ID", 4, 2),
        ("GPU-11bb", None, 4, 1),
        ("GPU-11,GPU-00aa", None, 4, 1),
    ],
)
def test_without_torch_the_environment_says_which(
    visible: str | None, order: str | None, boards: int, board: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_torch(monkeypatch)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert computing_board(nvml(boards)) == board


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        (None, "NVML lists 4 boards and torch sees no CUDA device"),
        ("3", "may not be NVML's"),
        ("", "shows CUDA no board"),
        ("-1", "shows CUDA no board"),
        ("7", "shows CUDA no board"),
        ("GPU-22", "more than one of the 4 boards"),
        ("MIG-1234", "'MIG-1234' is a MIG slice"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(
    visible: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_torch(monkeypatch)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UnavailableError, match=message) as refusal:
        computing_board(nvml())
    assert "\n" not in str(refusal.value)


def test_a_slice_of_a_board_has_no_energy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_torch(monkeypatch, SimpleNamespace(uuid="11bb"))
    assert computing_board(nvml(mig=2)) == 1
    with pytest.raises(UnavailableError, match="'GPU-11bb' is a MIG slice, or a board divided into such"):
        computing_board(nvml(mig=1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    with pytest.raises(UnavailableError, match="MIG-1234"):
        computing_board(nvml())
