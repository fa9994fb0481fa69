"""A Hydra + PyTorch app that knows nothing of this project."""

import logging
import os
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, instantiate
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

log = logging.getLogger(__name__)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    torch.manual_seed(cfg.seed)
    device = torch.device(cfg.trainer.device)
    inputs = torch.randn(256, 8)
    targets = (inputs.sum(1) > 0).long()
    data = TensorDataset(inputs, targets)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(8, cfg.model.width), nn.ReLU(), nn.Linear(cfg.model.width, 2))
    model.to(device)
    optimizer = instantiate(cfg.optimizer, model.parameters())
    marker = Path(get_original_cwd()) / "failed_once"
    if cfg.model.width == cfg.fails_once_at and not marker.exists():
        marker.touch()
        raise RuntimeError("out of luck")
    for epoch in range(cfg.epochs):
        for batch, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.to(device)), labels.to(device)).backward()
            optimizer.step()
        log.info("epoch %d of job %d", epoch, HydraConfig.get().job.num)
    right = (model(inputs.to(device)).argmax(1) == targets.to(device)).float().mean().item()
    torch.save(model.state_dict(), Path(HydraConfig.get().runtime.output_dir) / "weights.pt")
    log.info("accuracy %.4f on %s, process %d", right, device, os.getpid())
    return right


if __name__ == "__main__":
    main()
