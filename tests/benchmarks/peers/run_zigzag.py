"""Run ZigZag on GEMMs on its TPU-like 32 x 32 array, in its own environment: shapes in, cycles and seconds out."""

import json
import logging
import os
import sys
import tempfile
import time

MAPPING = """
- name: default
  spatial_mapping: {D1: ["K, 32"], D2: ["C, 32"]}
  memory_operand_links: {O: O, W: I2, I: I1}
"""
WORKLOAD = """
- id: 0
  name: gemm
  operator_type: Gemm
  equation: O[b][k]+=W[k][c]*I[b][c]
  dimension_relations: []
  loop_dims: [B, K, C]
  loop_sizes: [%d, %d, %d]
  operand_precision: {W: 8, I: 8, O: 16, O_final: 8}
  operand_source: {W: 0, I: 0}
"""


def run(m: int, k: int, n: int) -> dict:
    import zigzag
    from zigzag.api import get_hardware_performance_zigzag

    with open("mapping.yaml", "w") as file:
        file.write(MAPPING)
    with open("workload.yaml", "w") as file:
        file.write(WORKLOAD % (m, n, k))
    start = time.perf_counter()
    _, _, models = get_hardware_performance_zigzag(
        workload="workload.yaml",
        accelerator=os.path.join(os.path.dirname(zigzag.__file__), "inputs", "hardware", "tpu_like.yaml"),
        mapping="mapping.yaml",
        opt="latency",
        dump_folder="out",
        loma_show_progress_bar=False,
    )
    seconds = time.perf_counter() - start
    return {"cycles": int(models[0][1][0][0].ideal_temporal_cycle), "seconds": seconds}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(json.dumps([run(*case) for case in json.loads(sys.argv[1])]))
        os.chdir("/")
