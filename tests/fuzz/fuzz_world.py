"""Valid inputs of every kind, made once, for examples to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import simkit as sk
import traces

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 24
ARCHS = ["cnvlutin", "systolic_32x32", "sparten", "h100_sxm", "eie", "scnn", "tensordash"]


class World:
    """Folder of inputs; paths are text, as commands take them."""

    def __init__(self, folder: Path):
        self.folder = folder
        rng = np.random.default_rng(7)
        masks = {
            "first": rng.random((TOKENS, 96)) < 0.3,
            "first_weight": rng.random((24, 96)) < 0.6,
            "second": rng.random((TOKENS, 130)) < 0.1,
            "second_weight": rng.random((20, 130)) < 0.5,
        }
        np.savez(folder / "masks.npz", **masks)
        self.masks = str(folder / "masks.npz")
        self.trace = str(folder / "plain.zarr")
        traces.import_masks(self.masks, self.trace)
        np.savez(folder / "dense.npz", first=masks["first"] | True)
        self.unweighted = str(folder / "dense.zarr")
        traces.import_masks(folder / "dense.npz", self.unweighted, n=8)
        self.model_trace = str(ROOT / "tests" / "data" / "minilm_relu_small.zarr")
        loaded = sk.load_trace(self.trace)
        self.result = str(sk.replay(loaded, ARCHS).save(folder / "result.parquet"))
        self.other = str(sk.replay(loaded, [sk.arch("cnvlutin", lanes=8)]).save(folder / "other.parquet"))
        self.cut = str(folder / "cut.parquet")
        Path(self.cut).write_bytes(Path(self.result).read_bytes()[:-400])
        self.damaged = str(shutil.copytree(self.trace, folder / "damaged.zarr"))
        for file in Path(self.damaged).rglob("c/*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-3])
        (folder / "empty").mkdir()
        (folder / "nothing.csv").write_bytes(b"")
        (folder / "mask.csv").write_text(
            "\n".join(",".join(map(str, row)) for row in masks["first"].astype(int)) + "\n"
        )
        self.arch = str(shutil.copy(ROOT / "hwmodels/archs/cnvlutin.yaml", folder / "own.yaml"))
        self.spec = str(folder / "spec.yaml")
        Path(self.spec).write_text(f"traces: ['{self.trace}']\narchs: [cnvlutin]\nfields: {{lanes: [8, 16]}}\n")
        self.search_spec = str(folder / "search.yaml")
        Path(self.search_spec).write_text(Path(self.spec).read_text() + "trials: 2\nsampler: random\n")
        reference = folder / "reference"
        reference.mkdir()
        rows = [
            f"{m},{n},{k},{m * n * k * 1e-11 + 0.005}"
            for m in (16, 64, 256)
            for n in (64, 512, 4096)
            for k in (64, 512, 4096)
        ]
        (reference / "gemm_bf16_h100_sxm.csv").write_text("m,n,k,latency_ms\n" + "\n".join(rows) + "\n")
        self.measured = str(reference / "gemm_bf16_h100_sxm.csv")

    def paths(self) -> list[str]:
        """Every input, one where another kind is expected among them, and some that are not there."""
        names = ["empty", "nothing.csv", "mask.csv", "reference", "missing.zarr", "missing.parquet"]
        own = [
            self.trace,
            self.unweighted,
            self.result,
            self.other,
            self.cut,
            self.damaged,
            self.arch,
            self.spec,
            self.search_spec,
            self.masks,
            self.measured,
        ]
        return [*own, *(str(self.folder / name) for name in names)]

    def sweeps(self) -> list[str]:
        """Specs of small sweeps."""
        start = f"traces: ['{self.trace}']\n"
        return [
            start + "archs: [cnvlutin, {name: systolic_32x32, fields: {rows: [8, 16], columns: 16}}]\n"
            "fields: {clock: [500 MHz, 1 GHz]}\n",
            start + "archs: cnvlutin\ntables: [default_45nm, eie_45nm]\n"
            "fields: {memory.bandwidth: {from: 10 GB/s, to: 1 TB/s, points: 3, scale: log}}\n"
            "together: [{memory.activation_buffer: 1 MiB, memory.weight_buffer: 2 MiB}]\n"
            'constraints: [\'memory.bandwidth <= "400 GB/s" or clock > "0.5 GHz"\']\n',
            start + "archs: [sparten]\nweights: [recorded, dense, 'random:0.5']\nops: [first]\n"
            "fields: {units: [16, 32], sync: [cluster, none]}\n",
            start + "archs: [h100_sxm]\nfields: {skip_overhead: {from: 0, to: 1, step: 0.5}}\n",
        ]

    def searches(self) -> list[str]:
        """Specs of small searches."""
        start = f"traces: ['{self.trace}']\ntrials: 2\nsampler: random\n"
        return [
            start + "archs: [cnvlutin]\nfields: {lanes: [8, 16], clock: [500 MHz, 1 GHz]}\n"
            "objectives: [cycles, energy]\nlimits: ['power_w <= \"5 W\"']\n",
            start + "archs: [systolic_32x32]\nfields: {rows: {from: 8, to: 32, points: 4}, columns: [16]}\n"
            "objectives: [latency, area]\narea: rows * columns * 0.001\nconstraints: ['rows * columns <= 1024']\n"
            "seed: 3\n",
        ]


def shipped(folder: str) -> list[str]:
    """Texts of the YAML files in a folder of the project."""
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).glob("*.yaml"))]
