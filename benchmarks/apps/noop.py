"""A Hydra app whose job does nothing: what is measured is what is round it."""

import os
import time

import hydra
from omegaconf import DictConfig

from benchmarks import probes


@hydra.main(config_path="conf", config_name="noop", version_base="1.3")
def main(cfg: DictConfig) -> float:
    probes.first_job()
    busy_s = float(os.environ.get("BENCH_BUSY_S", "0"))
    if busy_s:
        with probes.busy_job():
            probes.burn(busy_s)
    return float(-cfg.seed)


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    probes.report(sweep_s=time.perf_counter() - began, idle=probes.idle_share())
