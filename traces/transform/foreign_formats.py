"""Read masks that other tools wrote: NumPy archives and arrays, DNNsim's folders, CSV."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError, InputError

WEIGHT = "_weight"
OUTPUTS = "_n"
SITES = "sites.json"
SYNTHETIC = "synthetic"
KINDS = "a NumPy .npz or .npy file, a CSV file with a row for each token, or a folder of .npy or .csv files"
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


def read_foreign(path: Path) -> Foreign:
    """Read a file or folder of masks; what differs from zero is a one.

    Raises
    ------
    InputError
        If there is nothing, or it is no mask.
    CorruptError
        If a file is damaged.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"no file at '{path}'; give {KINDS}")
    if path.suffix == ".npy":
        match = DNNSIM.fullmatch(path.stem)
        return Foreign({(match and match["act"]) or path.stem: _npy(path)}, {}, {})
    if path.suffix == ".csv":
        return Foreign({path.stem: _csv(path)}, {}, {})
    return _npz(path)


def _npz(path: Path) -> Foreign:
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as handle:  # numpy leaves a file open that it finds damaged
            loaded = np.load(handle, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is a single array; name it .npy")
            arrays = {name: np.asarray(loaded[name]) for name in loaded.files}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CorruptError(f"{path} is not a readable .npz archive ({error})") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{path}: {error}; give {KINDS}; arrays of Python objects are refused, save plain numbers"
        ) from error
    drawn = SYNTHETIC in arrays and arrays[SYNTHETIC].ndim == 0 and bool(arrays.pop(SYNTHETIC))
    outputs = {n.removesuffix(OUTPUTS): int(a) for n, a in arrays.items() if n.endswith(OUTPUTS) and a.ndim == 0}
    outputs = {name: n for name, n in outputs.items() if name in arrays}
    weights = {n.removesuffix(WEIGHT): a for n, a in arrays.items() if n.endswith(WEIGHT)}
    weights = {name: array for name, array in weights.items() if name in arrays}
    beside = {f"{name}{OUTPUTS}" for name in outputs} | {f"{name}{WEIGHT}" for name in weights}
    masks = {name: array for name, array in arrays.items() if name not in beside}
    if not masks:
        raise InputError(f"{path} holds no array; give arrays NAME of shape (M, K)")
    return Foreign(masks, weights, outputs, drawn)


def _npy(path: Path) -> NDArray[Any]:
    """Map an array into memory: rows are read when they are packed."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "objects" in str(error) or "pickle" in str(error):
            raise InputError(f"{path}: arrays of Python objects are refused, save plain numbers") from error
        raise CorruptError(f"{path} is not a readable .npy array ({error})") from error
    except (OSError, EOFError) as error:
        raise CorruptError(f"{path} is not a readable .npy array ({error})") from error
    if array.ndim == 4:  # DNNsim: batch, channels, height, width
        if array.shape[2:] != (1, 1):
            raise InputError(
                f"{path} is a convolution's map of shape {array.shape}; unfold it to (M, K), one row for each output "
                "position"
            )
        array = array[:, :, 0, 0]
    return array


def _csv(path: Path) -> NDArray[Any]:
    import pandas as pd

    with path.open("rb") as handle:
        first = handle.readline(1 << 16).decode("utf-8", "replace").strip().rstrip(",")
    if first.lower().startswith("layer"):
        raise InputError(
            f"{path} is a topology (it begins with '{first[:40]}'): sizes without masks; give a CSV with a row of "
            "zeros and ones for each token"
        )
    try:
        frame = pd.read_csv(path, header=None, dtype=np.float32)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(
            f"{path}: {str(error).splitlines()[0]}; give rows of numbers, all of the same length"
        ) from error
    if frame.shape[1] > 1 and frame.iloc[:, -1].isna().all():  # SCALE-Sim ends its lines with a comma
        frame = frame.iloc[:, :-1]
    if bool(frame.isna().any(axis=None)):
        row = int(np.flatnonzero(frame.isna().any(axis=1))[0])
        raise InputError(f"{path}: row {row + 1} is shorter than others or holds no number; every token has K values")
    return frame.to_numpy()


def _folder(path: Path) -> Foreign:
    masks: dict[str, NDArray[Any]] = {}
    weights: dict[str, NDArray[Any]] = {}
    parts: dict[str, list[tuple[int, NDArray[Any]]]] = {}
    for file in sorted(path.iterdir()):
        match = DNNSIM.fullmatch(file.stem)
        if file.suffix == ".npy" and match and match["act"]:
            parts.setdefault(match["act"], []).append((int(match["part"]), _npy(file)))
        elif file.suffix == ".npy" and match:
            weights[match["wgt"]] = _npy(file)
        elif file.suffix in (".npy", ".csv"):
            array = _npy(file) if file.suffix == ".npy" else _csv(file)
            name = file.stem.removesuffix(WEIGHT)
            (masks if name == file.stem else weights)[name] = array
    for name, pieces in parts.items():
        arrays = [array for _, array in sorted(pieces, key=lambda pair: pair[0])]
        widths = {array.shape[1:] for array in arrays}
        if len(widths) > 1:
            raise InputError(f"{path}: the files act-{name}-*.npy have different widths {sorted(widths)}")
        masks[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if not masks:
        raise InputError(f"folder '{path}' holds no masks; give {KINDS}")
    listed, drawn = _sites(path / SITES)
    order = [name for name in listed if name in masks] + [name for name in masks if name not in listed]
    return Foreign(
        {name: masks[name] for name in order}, {n: a for n, a in weights.items() if n in masks}, listed, drawn
    )


def _sites(path: Path) -> tuple[dict[str, int], bool]:
    """What an export leaves beside its arrays: N by site, in the model's order, and whether masks are synthetic."""
    if not path.is_file():
        return {}, False
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): int(n) for name, n in said["sites"].items()}, bool(said[SYNTHETIC])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CorruptError(f"{path} is not a list of outputs by site ({error}); remove it and give --n") from error
