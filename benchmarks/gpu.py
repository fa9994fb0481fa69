"""Training throughput of several slots on one GPU, with and without what a slot sets up.

As a script (the measured process): ``python -m benchmarks.gpu NET SLOTS MODE SECONDS [DEVICE]``.
"""

import contextlib
import sys
import threading
import time

from benchmarks.measure import Row, Section, child, interleaved, median

MODES = {
    "as built": (True, True),
    "no stream of its own": (False, True),
    "backward in autograd's thread": (True, False),
    "neither": (False, False),
}
SLOTS = (1, 2, 3, 4, 8)
NETS = {
    "small": "MLP 256-512-10, batch 128",
    "middle": "7 convolutions of 64..256 channels on 32x32, batch 128",
}


def make(net, torch):
    """Return a network, and a batch for it."""
    nn = torch.nn
    if net == "small":
        model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
        return model, (torch.randn(128, 256), torch.randint(0, 10, (128,)))
    layers, channels = [], 3
    for wide, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 2)):
        layers += [nn.Conv2d(channels, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)]
        layers.append(nn.ReLU())
        channels = wide
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))
    return model, (torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,)))


def on_device(torch, stream, backward):
    """Return a stand-in for ``Slot.on_device`` that sets up only what is asked for."""

    streams = {}  # by slot

    @contextlib.contextmanager
    def on_device(slot):
        with contextlib.ExitStack() as stack:
            if slot.device.type == "cuda":
                stack.enter_context(torch.cuda.device(slot.device))
                if stream:
                    own = streams.setdefault(slot.spec.index, torch.cuda.Stream(slot.device))
                    stack.enter_context(torch.cuda.stream(own))
                if backward:
                    stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            yield

    return on_device


def train_all(net, slots, mode, seconds, device="cuda:0"):
    """Train one network a slot for so many seconds; report steps a second of all together."""
    import torch

    from benchmarks import probes
    from junky_core import torch_autotrain
    from junky_core.accelerators import device_module
    from junky_core.executors.slots import Slot

    if mode != "as built":
        Slot.on_device = on_device(torch, *MODES[mode])
    ready, steps, stalls = threading.Barrier(slots), [0] * slots, [0.0] * slots

    def synchronize():
        if device != "cpu":
            device_module(torch.device(device).type).current_stream().synchronize()

    def train(where, _loaders, model, place, batch, save_best, _log_prefix):
        inputs, targets = (part.to(where) for part in batch)
        optimizer = torch.optim.Adam(model.parameters())

        def step():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

        for _ in range(20):
            step()
        synchronize()
        ready.wait(60)  # a slot that died must not keep the others
        began = last = time.perf_counter()
        count = 0
        while last - began < seconds:
            step()
            count += 1
            if count % 20 == 0:
                synchronize()
                now = time.perf_counter()
                stalls[place] = max(stalls[place], now - last)
                last = now
                if place == 0 and count % 200 == 0:
                    save_best(model, count)  # slot 1 saves over and over: do the others stall?
        steps[place] = count / (last - began)

    def make_model(place):
        model, batch = make(net, torch)
        return model, place, batch

    torch_autotrain(
        make_model,
        train,
        make_model_fit_params=[("place", range(slots))],
        devices={device: slots},
    )
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else "CPU"
    probes.report(
        steps=sum(steps), least=min(steps), stall_ms=max(stalls[1:], default=0) * 1e3, device=name
    )


def gpu_name():
    """Return the first GPU's name, ``""`` if there is none; asked in another process."""
    code = (
        "import torch; from benchmarks import probes; "
        "probes.report(name=torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
    )
    return child(["-c", code]).figures["name"]


def cost(options):
    """Steps a second of 1 to 8 slots on one GPU."""
    name = gpu_name()
    section = Section(
        f"Slots on one GPU: {name or 'none here'}",
        note="Steps per second of all slots together; slot 1 saves its model every 200 steps. "
        "Stall: the longest 20 steps of the other slots.",
    )
    if not name:
        section.rows.append(Row("1, 2, 3, 4 and 8 slots", "skipped: no GPU"))
        return section
    seconds = 2 if options.quick else 5
    slots = (1, 2, 4) if options.quick else SLOTS
    for net, title in NETS.items():
        runs = {
            (mode, n): lambda m=mode, s=n, t=net: (
                child(["-m", "benchmarks.gpu", t, s, m, seconds], timeout_s=300).figures
            )
            for n in slots
            for mode in MODES
        }
        results = interleaved(runs, options.rounds)
        alone = results["as built", 1]
        for (mode, n), got in results.items():
            if isinstance(got, str):
                section.rows.append(Row(f"{net}, {n} slots, {mode}", got))
                continue
            rate = median(one["steps"] for one in got)
            ratio = ""
            if not isinstance(alone, str):
                ratio = f"{rate / median(one['steps'] for one in alone):.2f}x 1 slot"
            section.rows.append(
                Row(
                    f"{net} ({title}), {n} slot{'s' if n > 1 else ''}, {mode}",
                    f"{rate:,.0f} steps/s; stall {median(one['stall_ms'] for one in got):.0f} ms",
                    ratio,
                )
            )
    return section


if __name__ == "__main__":
    net, slots, mode, seconds, *where = sys.argv[1:]
    train_all(net, int(slots), mode, float(seconds), *where)
