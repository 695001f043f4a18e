"""Time SCALE-Sim 3 and ZigZag beside ours; dense compute cycles must agree.

python tests/benchmarks/peers [FOLDER]

Each tool gets an environment of its own below FOLDER (out/peers by default), made once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hwmodels import Arch, Op, load_arch
from hwmodels.registry import kernel_of, params_of

HERE = Path(__file__).parent
PINS = {
    "scalesim": ["scalesim==3.0.0", "numpy<2.4", "setuptools<81"],
    "zigzag": ["zigzag-dse==3.9.1", "six==1.17.0", "numpy<2.4"],
}
SHAPES = [(64, 384, 96), (128, 768, 128), (70, 100, 50)]
# ZigZag's mapping wants factors that fill the array
ZIGZAG_SHAPES = [(64, 384, 96), (128, 768, 128), (512, 3072, 768)]


def environment(folder: Path, tool: str) -> Path:
    """Make a tool's environment, or find it; returns its Python."""
    home = folder / tool
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        print(f"== peers: environment of {tool} in {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS[tool]], check=True)
        (home / ".ready").touch()
    return python.absolute()


def theirs(python: Path, script: str, cases: list[Any]) -> list[dict[str, Any]]:
    """Run one driver in its environment."""
    done = subprocess.run(
        [str(python), str(HERE / script), json.dumps(cases)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def ours(arch: Arch, op: Op) -> dict[str, Any]:
    """Dense cycles and best seconds of our kernel, compiled."""
    kernel, params = kernel_of(arch), params_of(arch)
    cycles = kernel.count(op, params, arch).dense_cycles
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        kernel.count(op, params, arch)
        taken.append(time.perf_counter() - start)
    return {"cycles": cycles, "seconds": min(taken)}


def main(folder: Path) -> int:
    """Print the table; 1 where cycles differ."""
    rows = []
    scale_cases = [(32, 32, flow, *shape) for flow in ("ws", "os") for shape in SHAPES]
    found = theirs(environment(folder, "scalesim"), "run_scalesim.py", scale_cases)
    for (_, _, flow, m, k, n), peer in zip(scale_cases, found, strict=True):
        name = "systolic_32x32" if flow == "ws" else "systolic_32x32_os"
        rows.append((f"SCALE-Sim 3.0.0 {flow}", name, (m, k, n), peer, ours(load_arch(name), Op("x", 0, m, k, n))))
    found = theirs(environment(folder, "zigzag"), "run_zigzag.py", ZIGZAG_SHAPES)
    for (m, k, n), peer in zip(ZIGZAG_SHAPES, found, strict=True):
        name = "tile_barrier_32x32"
        rows.append(("ZigZag 3.9.1 ideal", name, (m, k, n), peer, ours(load_arch(name), Op("x", 0, m, k, n))))
    print(f"{'peer':22}{'ours':22}{'M x K x N':>18}{'cycles':>11}{'ours':>11}{'s':>9}{'ours s':>11}{'ratio':>10}")
    for peer_name, name, shape, peer, own in rows:
        agree = "" if peer["cycles"] == own["cycles"] else "  <- cycles differ"
        print(
            f"{peer_name:22}{name:22}{' x '.join(map(str, shape)):>18}{peer['cycles']:>11}{own['cycles']:>11}"
            f"{peer['seconds']:>9.3f}{own['seconds']:>11.6f}{peer['seconds'] / own['seconds']:>10.0f}{agree}"
        )
    return int(any(peer["cycles"] != own["cycles"] for *_, peer, own in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/peers")))
