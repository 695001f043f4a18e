"""Run SCALE-Sim 3 on GEMMs, in its own environment: shapes as JSON in, cycles and seconds as JSON out.

SCALE-Sim works from files in a folder and prints its progress, so both are kept to a folder of its own.
"""

import contextlib
import csv
import io
import json
import os
import sys
import tempfile
import time

CONFIG = """
[general]
run_name = peer
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = 512
FilterSramSzkB = 512
OfmapSramSzkB = 512
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def run(rows: int, columns: int, dataflow: str, m: int, k: int, n: int) -> dict:
    from scalesim.scale_sim import scalesim

    with open("peer.cfg", "w") as file:
        file.write(CONFIG.format(rows=rows, columns=columns, dataflow=dataflow))
    with open("peer.csv", "w") as file:
        file.write(f"Layer, M, N, K,\ngemm, {m}, {n}, {k},\n")
    with open("layout.csv", "w") as file:
        file.write("," * 21 + "\ngemm,1,1,1,1,1,1,0,1,2,0,1,2,0,1,2,3,0,1,2,3,\n")
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        simulation = scalesim(
            save_disk_space=True,
            verbose=False,
            config="peer.cfg",
            topology="peer.csv",
            layout="layout.csv",
            input_type_gemm=True,
        )
        simulation.run_scale(top_path="out")
    seconds = time.perf_counter() - start
    with open("out/peer/COMPUTE_REPORT.csv") as file:
        row = list(csv.reader(file))[1]
    # the report gives the number of the last cycle, counted from 0
    return {"cycles": int(row[2]) - int(row[3]) + 1, "seconds": seconds}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(json.dumps([run(*case) for case in json.loads(sys.argv[1])]))
        os.chdir("/")
