"""The work of the digit trainings, the same for all contestants.

scikit-learn's handwritten digits, upsampled to 16x16 and augmented 8x; networks with one hidden
layer; Adam with 2 rates, or SGD with 2 rates and 2 momenta: 24 trainings.
"""

import functools
import threading

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

# The longest first, so that the end of the sweep does not leave a slot idle for long.
WIDTHS = [1024, 512, 256, 128]
ADAM_RATES = [1e-3, 3e-3]
SGD_RATES = [0.1, 0.03]
MOMENTA = [0.0, 0.9]
EPOCHS = 12
BATCH = 128

FIT_PARAMS = [
    ("width", WIDTHS),
    [("name", ["adam"]), ("lr", ADAM_RATES)],
    [("name", ["sgd"]), ("lr", SGD_RATES), ("momentum", MOMENTA)],
]


def grid():
    """Return the 24 parameter sets, for contestants that have no such grammar."""
    optimizers = [{"name": "adam", "lr": lr} for lr in ADAM_RATES]
    optimizers += [{"name": "sgd", "lr": lr, "momentum": m} for lr in SGD_RATES for m in MOMENTA]
    return [{"width": width, **optimizer} for width in WIDTHS for optimizer in optimizers]


def prepare():
    """Return the training and the validation part: images ``(n, 256)`` and classes ``(n,)``."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    images = np.kron(digits.images / 16, np.ones((1, 2, 2))).astype(np.float32)
    order = rng.permutation(len(images))
    train, valid = order[360:], order[:360]
    augmented, classes = [images[train]], [digits.target[train]]
    for _ in range(7):
        shifted = np.stack(
            [np.roll(image, rng.integers(-1, 2, 2), (0, 1)) for image in images[train]]
        )
        augmented.append(shifted + rng.normal(0, 0.1, shifted.shape).astype(np.float32))
        classes.append(digits.target[train])
    return tuple(
        np.ascontiguousarray(part)
        for part in (
            np.concatenate(augmented).reshape(-1, 256),
            np.concatenate(classes),
            images[valid].reshape(-1, 256),
            digits.target[valid],
        )
    )


_preparing = threading.Lock()
_once = functools.cache(prepare)


def prepared():
    """Return :func:`prepare`'s arrays, made once in a process, however many threads ask."""
    with _preparing:
        return _once()


def make_model(width, name, lr, momentum=0.0):
    """Return a network and its optimizer."""
    model = nn.Sequential(nn.Linear(256, width), nn.ReLU(), nn.Linear(width, 10))
    if name == "adam":
        return model, torch.optim.Adam(model.parameters(), lr)
    return model, torch.optim.SGD(model.parameters(), lr, momentum)


def fit(model, optimizer, data, on_score, epochs=EPOCHS):
    """Train, calling ``on_score(model, accuracy)`` after each epoch; return the best accuracy."""
    images, classes, valid_images, valid_classes = (torch.as_tensor(part) for part in data)
    best = 0.0
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = (model(valid_images).argmax(1) == valid_classes).sum()
        accuracy = right.item() / len(valid_classes)
        best = max(best, accuracy)
        on_score(model, accuracy)
    return best


def train(params, data):
    """Train one network on one core, as contestants do that keep no model."""
    torch.set_num_threads(1)
    model, optimizer = make_model(**params)
    return fit(model, optimizer, data, lambda _model, _score: None)
