"""A plain script that trains with accelerate: ``accelerate_script.py ACCUMULATION PRECISION``.

It knows nothing of sweeps; tests call its ``train`` in jobs too.
"""

import json
import sys

import torch
from torch import nn

BATCHES = 10


def data():
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(BATCHES * 4, 6, generator=generator)
    return torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))


def model():
    generator = torch.Generator().manual_seed(8)
    made = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return made


def train(accumulation, precision, at_each_batch=lambda: None, accelerator=None, loader=None):
    """Return the losses, the number of optimizer steps and the sum of the weights."""
    from accelerate import Accelerator

    if accelerator is None:
        accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulation, mixed_precision=precision
        )
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    net, optimizer = accelerator.prepare(net, optimizer)
    if loader is None:
        loader = accelerator.prepare(torch.utils.data.DataLoader(data(), batch_size=4))
    losses, steps = [], 0
    for _epoch in range(2):
        for inputs, targets in loader:
            with accelerator.accumulate(net):
                at_each_batch()
                loss = (net(inputs) - targets).square().mean()
                accelerator.backward(loss)
                at_each_batch()
                steps += accelerator.sync_gradients
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    return [losses, steps, sum(p.double().sum().item() for p in net.parameters())]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(train(int(sys.argv[1]), sys.argv[2])))
