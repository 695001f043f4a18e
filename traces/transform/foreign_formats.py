"""Read masks that other tools wrote: NumPy, SciPy, torch and safetensors files, DNNsim's folders, CSV.

What is not zero is a one; a value that is not finite is refused. Endings may be in capitals.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.text_files import one_line, split_name
from ..errors import CorruptError, InputError, TraceError
from ..files import kind_of
from .mask_tables import read_mask_csv

log = logging.getLogger(__name__)
WEIGHT = "_weight"
OUTPUTS = "_n"
SITES = "sites.json"
SYNTHETIC = "synthetic"
KINDS = (
    "a NumPy .npz or .npy file, a SciPy sparse .npz, a torch .pt or .pth file of tensors, a .safetensors file, a CSV "
    "file with a row for each token, or a folder of .npy or .csv files"
)
SPARSE = frozenset(("format", "shape", "data"))  # arrays of scipy.sparse.save_npz
DNNSIM = re.compile(r"act-(?P<act>.+)-(?P<part>\d+)|wgt-(?P<wgt>.+)")


class Foreign(NamedTuple):
    """What a file or folder holds.

    Parameters
    ----------
    masks : dict of str to array (M, K)
        By site.
    weights : dict of str to array (N, K)
        Of the sites that have one.
    outputs : dict of str to int
        N, where the file says it.
    synthetic : bool
        Whether it was exported from a synthetic trace.
    """

    masks: dict[str, NDArray[Any]]
    weights: dict[str, NDArray[Any]]
    outputs: dict[str, int]
    synthetic: bool = False


def read_foreign(path: Path, header: bool | None = None, index: bool | None = None) -> Foreign:
    """Read a file or folder of masks; what differs from zero is a one.

    Parameters
    ----------
    path : Path
        One of `KINDS`.
    header, index : bool, optional
        Of CSV files; see `traces.transform.mask_tables`.

    Raises
    ------
    InputError
        If there is nothing, or it is no mask.
    CorruptError
        If a file is damaged.
    """
    if (path / "zarr.json").is_file():
        raise InputError(f"{path} is a Zarr store; a trace is read as it is, without an import; else give {KINDS}")
    if path.is_dir():
        return _folder(path, header, index)
    if not path.is_file():
        raise InputError(f"no file at '{path}'; give {KINDS}")
    stem, ending = split_name(path)
    if ending in (".csv", ".tsv"):
        return Foreign({stem: read_mask_csv(path, header, index)}, {}, {})
    if header is not None or index is not None:
        raise InputError(f"{path} is no CSV: --header and --index (header=, index=) say nothing of it; leave them out")
    if path.suffix.lower() != ending:
        raise InputError(f"{path} is compressed; unpack it first")
    if ending == ".npy":
        match = DNNSIM.fullmatch(stem)
        return Foreign({(match and match["act"]) or stem: _npy(path)}, {}, {})
    if ending in (".pt", ".pth"):
        return _sorted_out(path, _torch(path))
    if ending == ".safetensors":
        return _sorted_out(path, _safetensors(path))
    return _npz(path)


def _npz(path: Path) -> Foreign:
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as handle:  # numpy leaves a file open that it finds damaged
            loaded = np.load(handle, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is a single array; name it .npy")
            if set(loaded.files) >= SPARSE:
                return Foreign({path.stem: _sparse(path)}, {}, {})
            arrays = {name: np.asarray(loaded[name]) for name in loaded.files}
    except TraceError:
        raise
    except ValueError as error:
        kind = kind_of(path)
        if kind and kind != "a ZIP archive":
            raise InputError(f"{path} is {kind}; give {KINDS}") from None
        if kind == "" or "pickle" in str(error) or "object" in str(error):
            raise InputError(
                f"{path}: arrays of Python objects are refused, save plain numbers; give {KINDS}"
            ) from error
        raise CorruptError(f"{path} is not a readable .npz archive ({one_line(error)})") from error
    except Exception as error:  # zipfile, zlib and numpy's parser of headers raise kinds of their own
        raise CorruptError(f"{path} is not a readable .npz archive ({one_line(error)})") from error
    return _sorted_out(path, arrays)


def _sorted_out(path: Path, arrays: dict[str, NDArray[Any]]) -> Foreign:
    """Tell masks from weights' masks and N by their names."""
    drawn = SYNTHETIC in arrays and arrays[SYNTHETIC].ndim == 0 and bool(arrays.pop(SYNTHETIC))
    counts = {n.removesuffix(OUTPUTS): a for n, a in arrays.items() if n.endswith(OUTPUTS) and a.ndim == 0}
    outputs = {name: _whole_number(path, name, a) for name, a in counts.items() if name in arrays}
    weights = {n.removesuffix(WEIGHT): a for n, a in arrays.items() if n.endswith(WEIGHT)}
    weights = {name: array for name, array in weights.items() if name in arrays}
    beside = {f"{name}{OUTPUTS}" for name in outputs} | {f"{name}{WEIGHT}" for name in weights}
    masks = {name: array for name, array in arrays.items() if name not in beside}
    if not masks:
        raise InputError(f"{path} holds no array; give arrays NAME of shape (M, K)")
    return Foreign(masks, weights, outputs, drawn)


def _whole_number(path: Path, name: str, held: NDArray[Any]) -> int:
    if held.dtype.kind not in "iuf" or not np.isfinite(held) or held < 1 or held != int(held):
        raise InputError(
            f"{path}: '{name}{OUTPUTS}' = {held[()]!r}, must be N of '{name}', a whole number of at least 1"
        )
    return int(held)


def _sparse(path: Path) -> NDArray[np.bool_]:
    """Read a matrix that scipy.sparse.save_npz wrote, in any of its formats; a stored zero is a zero."""
    from scipy import sparse

    try:
        matrix = sparse.load_npz(path)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise CorruptError(f"{path} is not a readable SciPy sparse matrix ({error}); save it again") from error
    if matrix.ndim != 2:
        raise InputError(f"{path} is a sparse array of shape {matrix.shape}; give two dimensions, (M, K)")
    if matrix.dtype.kind == "f" and not np.isfinite(matrix.data).all():
        raise InputError(f"{path}: the sparse matrix has non-finite values; replace them first")
    ones: NDArray[np.bool_] = (matrix.tocsr() != 0).toarray()
    return ones


def _torch(path: Path) -> dict[str, NDArray[Any]]:
    """Read a tensor, or a dictionary of them by name; Python objects are never unpickled."""
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if kind_of(path) not in ("a ZIP archive", "a Python pickle"):
            raise InputError(f"{path} is not a file that torch.save wrote; give {KINDS}") from None
        raise InputError(
            f"{path} holds Python objects, which are not loaded from a file; save the tensors alone: "
            "torch.save({'NAME': mask}, FILE)"
        ) from error
    except Exception as error:  # torch raises a dozen unrelated kinds for a damaged file
        if "TorchScript" in str(error):
            raise InputError(f"{path} is a TorchScript program, not tensors; save its tensors alone") from None
        raise CorruptError(f"{path} is not a readable torch file ({one_line(error)[:200]})") from error
    if isinstance(held, torch.Tensor):
        return {path.stem: _tensor(path, path.stem, held)}
    if not isinstance(held, dict) or not held:
        raise InputError(
            f"{path} holds a {type(held).__name__}, not tensors by name; save them with torch.save({{'NAME': mask}}, "
            "FILE)"
        )
    return {str(name): _tensor(path, str(name), one) for name, one in held.items()}


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        # by torch, because numpy has no bfloat16
        with safe_open(path, framework="pt") as held:
            return {name: _tensor(path, name, held.get_tensor(name)) for name in held.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path} is not a readable safetensors file ({error})") from error


def _tensor(path: Path, name: str, held: Any) -> NDArray[Any]:
    """Turn a tensor of any layout and any type of floats into an array."""
    import torch

    if isinstance(held, bool | int | float):
        return np.asarray(held)
    if not isinstance(held, torch.Tensor):
        raise InputError(
            f"{path}: '{name}' is a {type(held).__name__}, not a tensor; save the tensors alone, each under its name"
        )
    try:
        dense = held.detach().to_dense() if held.layout != torch.strided else held.detach()
        if dense.is_floating_point() and dense.dtype != torch.float64:
            dense = dense.float()  # exact; numpy knows neither bfloat16 nor 8-bit floats
        array: NDArray[Any] = dense.numpy()
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{path}: tensor '{name}' of type {held.dtype} is no mask; save it as booleans") from error
    return array


def _npy(path: Path) -> NDArray[Any]:
    """Map an array into memory: rows are read when they are packed."""
    with path.open("rb") as handle:
        archive = handle.read(2) == b"PK"  # an empty one has not the first bytes of others
    if archive:
        raise InputError(f"{path} is an archive of arrays; name it .npz")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's parser of headers raises kinds of its own
        if isinstance(error, ValueError) and ("objects" in str(error) or "pickle" in str(error)):
            raise InputError(f"{path}: arrays of Python objects are refused, save plain numbers") from error
        raise CorruptError(f"{path} is not a readable .npy array ({one_line(error)})") from error
    if array.ndim == 4:  # DNNsim: batch, channels, height, width
        if array.shape[2:] != (1, 1):
            raise InputError(
                f"{path} is a convolution's map of shape {array.shape}; unfold it to (M, K), one row for each output "
                "position"
            )
        array = array[:, :, 0, 0]
    return array


def _folder(path: Path, header: bool | None, index: bool | None) -> Foreign:
    masks: dict[str, NDArray[Any]] = {}
    weights: dict[str, NDArray[Any]] = {}
    parts: dict[str, list[tuple[int, NDArray[Any]]]] = {}
    listed, drawn = _sites(path / SITES)
    if (path / SITES).is_file():  # our own export: its CSV files are rows alone
        header, index = bool(header), bool(index)
    unread: list[str] = []
    for file in sorted(path.iterdir()):
        stem, ending = split_name(file)
        match = DNNSIM.fullmatch(stem)
        if (
            file.is_dir()
            or ending not in (".npy", ".csv", ".tsv")
            or (ending == ".npy" and file.suffix.lower() != ending)
        ):
            unread += [file.name] * (file.name != SITES and not file.name.startswith("."))
        elif ending == ".npy" and match and match["act"]:
            parts.setdefault(match["act"], []).append((int(match["part"]), _npy(file)))
        else:
            name = match["wgt"] if ending == ".npy" and match else stem.removesuffix(WEIGHT)
            kept = masks if name == stem else weights
            if name in kept:
                raise InputError(f"folder '{path}' has two files of '{name}', {file.name} the second; keep one")
            kept[name] = _npy(file) if ending == ".npy" else read_mask_csv(file, header, index)
    for name, pieces in parts.items():
        masks[name] = _joined(path, name, pieces)
    if not masks:
        raise InputError(f"folder '{path}' holds no masks; give {KINDS}")
    unread += [f"the weight of '{name}', which has no mask" for name in weights if name not in masks]
    if unread:
        log.warning("%s: left out %s", path, ", ".join(unread))
    order = [name for name in listed if name in masks] + [name for name in masks if name not in listed]
    return Foreign(
        {name: masks[name] for name in order}, {n: a for n, a in weights.items() if n in masks}, listed, drawn
    )


def _joined(path: Path, name: str, pieces: list[tuple[int, NDArray[Any]]]) -> NDArray[Any]:
    """Join DNNsim's batches of one layer in their order."""
    pieces = sorted(pieces, key=lambda pair: pair[0])
    numbers, arrays = [number for number, _ in pieces], [array for _, array in pieces]
    widths = {array.shape[1:] for array in arrays}
    if len(widths) > 1:
        raise InputError(f"{path}: the files act-{name}-*.npy have different widths {sorted(widths)}")
    missing = sorted(set(range(numbers[-1])) - set(numbers))
    if missing:
        log.warning("%s: act-%s-%d.npy is missing among its parts; the others are joined", path, name, missing[0])
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _sites(path: Path) -> tuple[dict[str, int], bool]:
    """What an export leaves beside its arrays: N by site, in the model's order, and whether masks are synthetic."""
    if not path.is_file():
        return {}, False
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): int(n) for name, n in said["sites"].items()}, bool(said[SYNTHETIC])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CorruptError(f"{path} is not a list of outputs by site ({error}); remove it and give --n") from error
