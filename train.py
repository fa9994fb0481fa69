"""Train a small network on scikit-learn's handwritten digits, once or as a sweep.

python train.py                                  # one training
python train.py --multirun                       # the sweep of conf/config.yaml
python train.py --multirun model.width=32,512    # other widths, same optimizers
"""

import logging

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from junky_core import current_job

log = logging.getLogger(__name__)


def make_loaders(batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Return loaders for the training and validation sets, always with the same split."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, valid = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    return (
        DataLoader(train, batch_size, shuffle=True),
        DataLoader(valid, batch_size=512),
    )


def accuracy(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Return the fraction of images classified correctly."""
    model.eval()
    with torch.no_grad():
        correct = sum(
            int((model(images.to(device)).argmax(1) == digits.to(device)).sum())
            for images, digits in loader
        )
    return correct / len(loader.dataset)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Train one network; return its best accuracy, the job's score."""
    job = current_job()
    if job.seed is not None:
        torch.manual_seed(job.seed)
    train_loader, valid_loader = job.loaders(make_loaders, cfg.data.batch_size)
    model = nn.Sequential(
        nn.Linear(64, cfg.model.width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(cfg.model.width, 10)
    ).to(job.device)
    optimizer = instantiate(cfg.optimizer, model.parameters())

    best = 0.0
    for _ in range(cfg.epochs):
        model.train()
        for images, digits in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(job.device)), digits.to(job.device))
            loss.backward()
            optimizer.step()
        score = accuracy(model, valid_loader, job.device)
        if score > best:
            best = score
            job.save_best(model, score)
    log.info("%saccuracy %.4f", job.log_prefix, best)
    return best


if __name__ == "__main__":
    main()
