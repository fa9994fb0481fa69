"""A Hydra app that trains with accelerate, and knows nothing of this project."""

import hydra
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=cfg.accumulation,
        mixed_precision=cfg.precision,
    )
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(80, 6, generator=generator)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.9)
    loader = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=4)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    for _ in range(cfg.epochs):
        for batch, targets in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(batch), targets)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    accelerator.print(f"loss {loss.item()!r}")
    return loss.item()


if __name__ == "__main__":
    main()
