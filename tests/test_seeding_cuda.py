"""On CUDA each job draws from one generator for each device."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from junky_core.job.seeding import JobStreams, installed_streams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = "cuda:0"
WORKLOADS = {}


def workload(function):
    WORKLOADS[function.__name__] = function
    return function


@workload
def factories(turn):
    drawn = []
    for draw in (
        lambda: torch.rand(3, device=DEVICE),
        lambda: torch.randn(3, device=DEVICE),
        lambda: torch.randperm(30, device=DEVICE),
        lambda: torch.randint(0, 99, (3,), device=DEVICE),
        lambda: torch.rand_like(torch.ones(3, device=DEVICE)),
        lambda: torch.multinomial(torch.ones(9, device=DEVICE), 3),
        lambda: torch.empty(3, device=DEVICE).exponential_(),
        lambda: torch.poisson(torch.full((3,), 5.0, device=DEVICE)),
        lambda: torch.rand(3),
    ):
        drawn.append(draw())
        turn()
    return drawn


@workload
def dropouts(turn):
    drawn = []
    for make in (nn.Dropout, nn.AlphaDropout, nn.Dropout1d):
        x = torch.ones(5, 6, 7, device=DEVICE, requires_grad=True)
        drawn.append(make(0.4)(x).detach())
        turn()
        with torch.no_grad():
            drawn.append(make(0.4)(x))
        turn()
    return drawn


@workload
def layers(turn):
    drawn = []
    for make in (nn.Linear, nn.Bilinear):
        args = (4, 5, 6) if make is nn.Bilinear else (4, 5)
        drawn += [p.detach() for p in make(*args, device=DEVICE).parameters()]
        turn()
    return drawn


@workload
def attention(turn):
    drawn = []
    for dtype in (torch.float32, torch.float16):
        q = torch.ones(2, 2, 16, 16, device=DEVICE, dtype=dtype, requires_grad=True)
        for causal in (False, True):
            drawn.append(F.scaled_dot_product_attention(q, q, q, dropout_p=0.5, is_causal=causal))
            turn()
    return [d.detach() for d in drawn]


@workload
def recomputation_in_an_autograd_thread(turn):
    layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).to(DEVICE)
    drawn = []
    for reentrant in (True, False):
        x = torch.ones(4, 6, device=DEVICE, requires_grad=True)
        y = checkpoint(layer, x, use_reentrant=reentrant)
        turn()
        y.sum().backward()
        turn()
        drawn += [y.detach(), x.grad, torch.rand(2, device=DEVICE)]
    return drawn


@workload
def draws_in_backward(turn):
    x = torch.ones(5, device=DEVICE, requires_grad=True)
    y = x * 1.0
    y.register_hook(lambda grad: grad + torch.randn_like(grad))
    turn()
    y.sum().backward()
    return [x.grad, torch.rand(2, device=DEVICE)]


@workload
def states(turn):
    drawn = []
    torch.cuda.manual_seed(4)
    turn()
    state = torch.cuda.get_rng_state(DEVICE)
    drawn.append(torch.rand(2, device=DEVICE))
    turn()
    torch.cuda.set_rng_state(state, DEVICE)
    drawn.append(torch.rand(2, device=DEVICE))
    with torch.random.fork_rng():
        torch.manual_seed(9)
        turn()
        drawn.append(torch.rand(2, device=DEVICE))
    drawn.append(torch.rand(2, device=DEVICE))
    torch.cuda.manual_seed_all(5)
    drawn += [torch.rand(2, device=DEVICE), torch.tensor(torch.cuda.initial_seed())]
    generator = torch.cuda.default_generators[0]
    drawn.append(torch.rand(2, device=DEVICE, generator=generator))
    return drawn


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("threads", "self_seeding"), [(1, False), (2, False), (4, False), (2, True)]
)
@pytest.mark.parametrize("name", WORKLOADS)
def test_jobs_at_the_same_time_draw_what_a_plain_script_draws(name, threads, self_seeding):
    function = WORKLOADS[name]
    seeds = [11, 11, 0, 7][:threads]
    expected = {}
    for seed in seeds:
        torch.manual_seed(seed)
        expected[seed] = function(lambda: None)
    process_wide = torch.cuda.get_rng_state(DEVICE)
    barrier = threading.Barrier(threads)
    got = {}

    def job(at, seed):
        try:
            with JobStreams(None if self_seeding else seed).thread():
                if self_seeding:
                    torch.manual_seed(seed)
                got[at] = function(lambda: barrier.wait(60))
        except BaseException:
            barrier.abort()
            raise

    slots = [threading.Thread(target=job, args=pair) for pair in enumerate(seeds)]
    with installed_streams():
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
    for at, seed in enumerate(seeds):
        assert same(got[at], expected[seed]), seed
    assert torch.equal(process_wide, torch.cuda.get_rng_state(DEVICE))
