"""A trace of 2 GB: written, verified, looked at, cut and replayed by a process of less than 500 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .test_streaming import BOUND_BYTES

K, ROWS, SITES = 11008, 800_000, 2

STEPS = """
import json, os, resource, sys, time
import numpy as np
from traces.transform.import_masks import flat_columns
from traces.storage.arrays import SiteMeta
from traces.storage.bits import pack
from traces.storage.store import Writer, squeeze
from traces.storage.chunks import content_hash
from traces.storage.trace import open_trace

place, k, rows, many = sys.argv[1], *map(int, sys.argv[2:5])
step = sys.argv[5]


def write():
    attrs = {"ops": squeeze([]), "tuning": {"name": "x"}, "model": {"name": "x"}, "data": {}, "synthetic": True}
    writer = Writer(place, rows, [SiteMeta(f"layers.{i}.down", i, "down", k, 4096) for i in range(many)], attrs)
    columns = flat_columns(rows)
    rng = np.random.default_rng(0)
    drawn = pack(rng.random((4096, k), dtype=np.float32) < 0.01)
    for first in range(0, rows, 4096):
        part = slice(first, min(rows, first + 4096))
        # the same rows in another order: no chunk can make use of another
        words = [drawn[rng.permutation(4096)][: part.stop - first] for _ in range(many)]
        writer.append({n: v[part] for n, v in columns.items()}, {f"layers.{i}.down": w for i, w in enumerate(words)})
        writer.commit()
    writer.commit(status="complete", hash=content_hash(open_trace(place)))
    writer.close()


def verify():
    open_trace(place).verify()


def stats():
    from traces.transform.statistics import summarise
    found = summarise(open_trace(place).sites["layers.1.down"].mask())
    assert abs(found.density - 0.01) < 1e-4


def slice_():
    from traces.transform.edit import slice_trace
    cut = slice_trace(open_trace(place), place + ".cut", sequences=rows // 2, sites=["layers.1.down"])
    assert cut.rows == rows // 2


def replay():
    import simkit as sk
    # the site's own op alone, so that this is what streaming it takes
    found = sk.replay(open_trace(place + ".cut"), "cnvlutin", ops=["down"], threads=1)
    ones = open_trace(place + ".cut").sites["layers.1.down"].mask().popcount()
    assert found.ops["effectual_macs"].sum() == ones * 4096


began = time.perf_counter()
{"write": write, "verify": verify, "stats": stats, "slice": slice_, "replay": replay}[step]()
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.perf_counter() - began, "rss": held}))
"""


def test_two_gigabytes_on_disk(benchmark: Any, tmp_path: Path) -> None:
    place = tmp_path / "big.zarr"
    packed = ROWS * SITES * K / 8
    assert packed > 4 * BOUND_BYTES

    def run() -> dict[str, dict[str, float]]:
        found = {}
        for step in ("write", "verify", "stats", "slice", "replay"):
            command = [sys.executable, "-c", STEPS, str(place), str(K), str(ROWS), str(SITES), step]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            found[step] = json.loads(done.stdout)
        return found

    found = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info.update({step: round(one["rss"] / 1e6) for step, one in found.items()})
    stored = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    assert stored < 2 * packed * 0.0808  # one per cent of ones has an entropy of 0.0808 bits
    assert {step: one["rss"] for step, one in found.items() if one["rss"] >= BOUND_BYTES} == {}
