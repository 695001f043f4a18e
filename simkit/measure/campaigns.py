"""Campaigns: what is measured on a device, each a command of its own with a budget, resumable.

| campaign | what | about |
|---|---|---|
| `smoke` | every kernel checked and timed once, device facts | 1 min |
| `calibrate` | copy and launch, stratified GEMMs, row gathers, sustained GEMMs | 3 min |
| `sparse` | density x batch x shape x kernel, cold and warm | 8 min |
| `energy` | GEMMs, gathers and a copy, looped for seconds by the energy counter | 8 min |
| `record` | what recording adds to forward passes; tune and record the demo's model | 5 min |
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hwmodels.errors import nearest

from ..errors import InputError, UnavailableError
from ..provenance import environment
from .bundle import Journal, bundle_path, write_bundle
from .points import BUDGET_S, CAMPAIGNS, CPU_CAMPAIGNS, Campaign, Point, Row, gpu_devices


def pending(folder: Path | None = None) -> list[dict[str, str]]:
    """List which campaigns lack a bundle for which device.

    Parameters
    ----------
    folder : Path, optional
        Where bundles lie; the package's own by default.

    Returns
    -------
    list of dict
        device, campaign, command, in the order in which they should be run.
    """
    wanted = [(device, campaign) for device in gpu_devices() for campaign in CAMPAIGNS]
    wanted += [("cpu", campaign) for campaign in CPU_CAMPAIGNS]
    return [
        {"device": device, "campaign": campaign, "command": f"simkit measure {campaign} --device {device}"}
        for device, campaign in wanted
        if not bundle_path(device, campaign, folder).exists()
    ]


def measure(
    campaign: str,
    *,
    device: str | None = None,
    out: str | Path | None = None,
    budget_s: float | None = None,
    trace: str | os.PathLike[str] | None = None,
    meter: str = "nvml",
) -> Path | None:
    """Measure what is left of a campaign on a device within its budget.

    Parameters
    ----------
    campaign : {"smoke", "calibrate", "sparse", "energy", "record"}
        What to measure.
    device : str, optional
        ``cpu``, or the arch of the GPU at hand; found by its name where left out.
    out : str or Path, optional
        Folder for bundles; the package's own by default.
    budget_s : float, optional
        Seconds of measuring; each campaign has its own.
    trace : path, optional
        Recorded trace whose masks join the Bernoulli ones in ``sparse``.
    meter : str
        What reads a GPU's energy: ``nvml``, ``zeus``, or one of the entry-point group ``simkit.meters``.

    Returns
    -------
    Path or None
        The bundle; None where the budget ran out first: the same command goes on.

    Raises
    ------
    InputError
        If the campaign or device is unknown, or the device is not the one at hand.
    UnavailableError
        If there is no such device here.

    Examples
    --------
    >>> sk.measure("smoke", device="cpu", out="bundles")  # doctest: +SKIP
    PosixPath('bundles/cpu/smoke.parquet')
    """
    if campaign not in CAMPAIGNS:
        raise InputError(f"unknown campaign '{campaign}'" + nearest(campaign, CAMPAIGNS))
    folder = Path(out) if out is not None else None
    budget = BUDGET_S[campaign] if budget_s is None else float(budget_s)
    if device == "cpu":
        from .cpu_campaigns import cpu_campaign

        plan = cpu_campaign(campaign, budget)
        where = "cpu"
    else:
        from .gpu_campaigns import gpu_campaign, gpu_here

        where = gpu_here(device)
        plan = gpu_campaign(campaign, where, None if trace is None else str(trace), meter)
    path = bundle_path(where, campaign, folder)
    done = _go(plan, Journal(path), budget, campaign)
    if done is None:
        return None
    flawed = [str(row["flaw"]) for row in done if row["flaw"]]
    if flawed:
        print(  # noqa: T201
            f"{campaign}: {len(flawed)} of {len(done)} points are marked and left out of fits; "
            f"first because: {flawed[0]}",
            file=sys.stderr,
        )
    bundle = write_bundle(path, done, {**environment(), **plan.facts, "campaign": campaign, "device": where})
    Journal(path).path.unlink(missing_ok=True)
    return bundle


def _go(campaign: Campaign, journal: Journal, budget_s: float, name: str) -> list[Row] | None:
    """Measure the points that the journal lacks; None if time ran out."""
    rows = journal.rows()
    finished = {_key(row) for row in rows}
    begun = time.monotonic()
    for number, point in enumerate(_left(campaign.points, finished)):
        if number and time.monotonic() - begun > budget_s:
            left = len(campaign.points) - len(rows)
            print(f"{name}: budget of {budget_s:.0f} s spent, {left} points left; run again", file=sys.stderr)  # noqa: T201
            return None
        row = {"point": _key_text(point), **point, **_measured(campaign, point)}
        journal.add(row)
        rows.append(row)
        if row["flaw"]:
            campaign.alive()
    return rows


def _left(points: list[Point], finished: set[str]) -> Iterator[Point]:
    return (point for point in points if _key_text(point) not in finished)


def _measured(campaign: Campaign, point: Point) -> Row:
    """Measure a point; one that cannot be measured is a row with its reason, left out of fits."""
    try:
        return {"flaw": "", **campaign.measure(point)}
    except (UnavailableError, InputError) as error:
        return {"flaw": str(error), "seconds": None}
    except Exception as error:
        # a kernel that fails its check, the device's own errors, or the compiler's
        if not isinstance(error, RuntimeError) and not type(error).__module__.startswith("triton."):
            raise
        return {"flaw": f"{type(error).__name__}: {error}".splitlines()[0][:200], "seconds": None}


def _key(row: Row) -> str:
    return str(row["point"])


def _key_text(point: Point) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(point.items()))
