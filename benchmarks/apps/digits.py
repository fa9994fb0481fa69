"""The digit trainings as a Hydra app that knows nothing of any launcher."""

import sys
import time

import hydra
from omegaconf import DictConfig, OmegaConf

from benchmarks import digits_work, probes


@hydra.main(config_path="conf", config_name="digits", version_base="1.3")
def main(cfg: DictConfig) -> float:
    params = {"width": cfg.width, **OmegaConf.to_container(cfg.optimizer)}
    return digits_work.train(params, digits_work.prepared())


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    probes.report(seconds=time.perf_counter() - began)
    sys.stdout.flush()
