"""The same sweep as in ``train.py``, from plain Python without Hydra."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from junky_core import torch_autotrain

EPOCHS = 15


def make_loaders() -> tuple[DataLoader, DataLoader]:
    """Return loaders for the training and validation sets, always with the same split."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, valid = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(valid, batch_size=512)


def make_model(
    width: int, optimizer: type[torch.optim.Optimizer], **rates: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the network and its optimizer."""
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))
    return model, optimizer(model.parameters(), **rates)


def train(device, loaders, model, optimizer, save_best, log_prefix) -> int:
    """Train the network and save it whenever it improves; return the number of epochs."""
    train_loader, valid_loader = loaders
    best = 0.0
    for _ in range(EPOCHS):
        model.train()
        for images, digits in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(device)), digits.to(device))
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = sum(
                int((model(images.to(device)).argmax(1) == digits.to(device)).sum())
                for images, digits in valid_loader
            )
        score = correct / len(valid_loader.dataset)
        if score > best:
            best = score
            save_best(model, score)
    print(f"{log_prefix}accuracy {best:.4f}")
    return EPOCHS


if __name__ == "__main__":
    result = torch_autotrain(
        make_model,
        train,
        make_loaders,
        make_model_fit_params=[
            ("width", [64, 128, 256]),
            [("optimizer", [torch.optim.Adam]), ("lr", [1e-3, 3e-3])],
            [("optimizer", [torch.optim.SGD]), ("lr", [0.03, 0.1]), ("momentum", [0.0, 0.9])],
        ],
        devices={"cpu": 2},
        best_model_file_name="best_digits.pt",
        best_model_device="cpu",
        seed=0,
    )
    print("best:", result.best_model_params)
    print("its accuracy:", result.best_model_score)
