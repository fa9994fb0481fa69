"""Every operator of this torch that draws numbers draws from the job's streams."""

import copy
import threading

import pytest
import torch

from junky_core.job.seeding import JobStreams
from junky_core.job.seeding._operators import OWN, drawing_operators, treatment

PARAMS = [
    torch.full(shape, 0.1) for shape in [(8, 3), (8, 2), (8,), (8,), (8, 2), (8, 2), (8,), (8,)]
]
GRU_PARAMS = [
    torch.full(shape, 0.1) for shape in [(6, 3), (6, 2), (6,), (6,), (6, 2), (6, 2), (6,), (6,)]
]
RNN_PARAMS = [
    torch.full(shape, 0.1) for shape in [(2, 3), (2, 2), (2,), (2,), (2, 2), (2, 2), (2,), (2,)]
]
STATE = torch.zeros(2, 4, 2)
RNN_INPUT = torch.ones(5, 4, 3)
PACKED = (torch.ones(20, 3), torch.full((5,), 4))


def rnn(params, state):
    return {
        "input": (RNN_INPUT, state, params, True, 2, 0.5, True, False, False),
        "data": (*PACKED, state, params, True, 2, 0.5, True, False),
    }


ATTENTION = tuple(torch.ones(2, 2, 4, 8) for _ in range(3))
# By name, or name and overload; whatever is not here is made from the operator's schema.
ARGUMENTS = {
    **{f"aten::lstm.{k}": v for k, v in rnn(PARAMS, [STATE, STATE]).items()},
    **{f"aten::gru.{k}": v for k, v in rnn(GRU_PARAMS, STATE).items()},
    **{f"aten::rnn_tanh.{k}": v for k, v in rnn(RNN_PARAMS, STATE).items()},
    **{f"aten::rnn_relu.{k}": v for k, v in rnn(RNN_PARAMS, STATE).items()},
    "aten::scaled_dot_product_attention": (*ATTENTION, None, 0.5),
    "aten::_scaled_dot_product_attention_math": (*ATTENTION, None, 0.5),
    "aten::_scaled_dot_product_flash_attention_for_cpu": ATTENTION,
    "aten::feature_dropout": (torch.ones(5, 6, 7), 0.5, True),
    "aten::feature_dropout_": (torch.ones(5, 6, 7), 0.5, True),
    "aten::feature_alpha_dropout": (torch.ones(5, 6, 7), 0.5, True),
    "aten::feature_alpha_dropout_": (torch.ones(5, 6, 7), 0.5, True),
    "prims::normal": ([6],),
    "prims::uniform": ([6],),
}
KEYWORDS = {
    "prims::normal": {
        "mean": 0.0,
        "std": 1.0,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "requires_grad": False,
    },
    "prims::uniform": {
        "low": 0.0,
        "high": 1.0,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    },
}
BY_NAME = {
    "generator": lambda: None,
    "low": lambda: 2,
    "from": lambda: 2,
    "noise": lambda: torch.zeros(9),
    "n": lambda: 9,
}
BY_TYPE = {
    "Tensor": lambda: torch.full((9,), 0.5),
    "int": lambda: 5,
    "SymInt": lambda: 5,
    "float": lambda: 0.5,
    "bool": lambda: True,
    "List[int": lambda: [6],
    "number": lambda: 0.1,
}
DO_NOT_RESIZE = {"aten::rrelu_with_noise.out", "aten::normal.Tensor_float_out"}
# Tagged, and yet nothing is drawn on the CPU.
DRAWS_NOTHING_ON_CPU = {
    "aten::_scaled_dot_product_flash_attention_for_cpu",  # refuses dropout
    "rngprims::philox_rand",  # is given seed and offset
    "aten::_scaled_dot_product_fused_attention_overrideable",  # a place for other backends
    "aten::_fused_sdp_choice",  # says which kernel will do
}


def tagged_operators():
    """Walk torch's own list, by another way than the product does."""
    found = {}
    for name in torch._C._dispatch_get_all_op_names():
        namespace, rest = name.split("::")
        base, _, overload = rest.partition(".")
        packet = getattr(getattr(torch.ops, namespace), base, None)
        operator = getattr(packet, overload or "default", None)
        if operator is not None and torch.Tag.nondeterministic_seeded in operator.tags:
            found[operator.name()] = operator
    return found


OPERATORS = tagged_operators()


def is_for_cpu(operator):
    """Whether it, or what it calls where it only writes to ``out``, has a kernel for the CPU."""
    base = getattr(torch.ops.aten, operator.name().split("::")[1].split(".")[0], operator)
    functional = getattr(base, "default", operator)
    return any(
        torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key)
        for op in {operator, functional}
        for key in ("CPU", "CompositeImplicitAutograd", "CompositeExplicitAutograd")
        if not ("out" in operator._overloadname and op is operator and functional is not operator)
    )


ON_CPU = sorted(
    name
    for name, operator in OPERATORS.items()
    if is_for_cpu(operator) and name not in DRAWS_NOTHING_ON_CPU
)


def sample(operator):
    name = operator.name()
    given = ARGUMENTS.get(name)
    keywords = dict(KEYWORDS.get(name, {}))
    args = list(copy.deepcopy(given)) if given else []
    for argument in operator._schema.arguments[len(args) :]:
        if argument.name in keywords:
            continue
        kind = str(argument.type).removeprefix("Optional[").rstrip("]")
        if argument.name in ("train", "training"):
            keywords[argument.name] = True
        elif argument.is_out:
            out = torch.empty(9 if name in DO_NOT_RESIZE else 0)
            if name.startswith(("aten::multinomial", "aten::randperm")):
                out = out.long()
            if name.startswith("aten::native_dropout") and argument.name == "out1":
                out = out.bool()
            keywords[argument.name] = out
        elif not argument.has_default_value():
            make = BY_NAME.get(argument.name) or BY_TYPE.get(kind)
            assert make is not None, f"{name}: give {argument.name} ({kind}) a sample here"
            value = make()
            if argument.name == "self" and "rrelu" in name:
                value = -value
            if name.startswith("aten::randint_like.Tensor") and argument.name == "high":
                value = torch.tensor(5)
            if argument.kwarg_only or keywords:
                keywords[argument.name] = value
            else:
                args.append(value)
    return args, keywords


def call(operator):
    args, keywords = sample(operator)
    return operator(*args, **keywords)


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return []


def equal(one, other):
    ours, theirs = leaves(one), leaves(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def test_the_product_walks_the_same_list():
    known = {operator.name() for operator in drawing_operators()}
    assert set(OPERATORS) - DRAWS_NOTHING_ON_CPU <= known
    assert len(OPERATORS) > 100


@pytest.mark.parametrize("name", ON_CPU)
def test_operator_draws_from_the_job(name):
    operator = OPERATORS[name]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    expected = call(operator)
    assert not torch.equal(before, torch.get_rng_state()), "the sample draws nothing"

    torch.manual_seed(99)
    process_wide = torch.get_rng_state()
    streams = JobStreams(3)
    with streams.thread():
        got = call(operator)
    assert equal(got, expected)
    assert torch.equal(process_wide, torch.get_rng_state())
    assert not torch.equal(before, streams.cpu.get_state())


def test_operators_that_are_left_alone_run_on_other_devices_only():
    for name, operator in OPERATORS.items():
        if name in ON_CPU or name in DRAWS_NOTHING_ON_CPU:
            continue
        if treatment(operator) == "none":
            assert name == "aten::_fused_sdp_choice" or not is_for_cpu(operator), name


@pytest.mark.parametrize("name", sorted(DRAWS_NOTHING_ON_CPU & set(ARGUMENTS)))
def test_operator_draws_nothing(name):
    before = torch.get_rng_state()
    call(OPERATORS[name])
    assert torch.equal(before, torch.get_rng_state())


def test_lent_operator_leaves_the_default_generator_as_it_was(monkeypatch):
    # An operator of a library that draws from the default generator by itself, as CUDA's fused
    # attention does: here one whose kernel is Python.
    from junky_core.job.seeding import _kernels

    library = torch.library.Library("junky_test_lent", "DEF")
    try:
        library.define("noise(Tensor x) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))

        def noise(x):
            # A generator of its own in that state draws what the default one would.
            own = torch.Generator()
            own.set_state(torch.default_generator.get_state())
            drawn = torch.rand(x.shape, generator=own)
            torch.default_generator.set_state(own.get_state())
            return drawn

        library.impl("noise", noise, "CPU")
        operator = torch.ops.junky_test_lent.noise.default
        assert treatment(operator) == "lent"
        library.impl(
            operator,
            _kernels.lent_kernel(operator, torch._C._dispatch_key_parse(OWN)),
            OWN,
        )
        torch.manual_seed(3)
        expected = [operator(torch.zeros(4)), torch.rand(2)]
        torch.manual_seed(99)
        process_wide = torch.get_rng_state()
        with JobStreams(3).thread():
            got = [operator(torch.zeros(4)), torch.rand(2)]
        assert equal(got, expected)
        assert torch.equal(process_wide, torch.get_rng_state())
    finally:
        library._destroy()


def test_given_generator_is_kept():
    mine = torch.Generator().manual_seed(5)
    expected = torch.rand(3, generator=mine)
    mine.manual_seed(5)
    streams = JobStreams(0)
    untouched = streams.cpu.get_state()
    with streams.thread():
        assert torch.equal(torch.rand(3, generator=mine), expected)
    assert torch.equal(streams.cpu.get_state(), untouched)


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: torch.rand(3, generator=g),
        lambda g: torch.randperm(9, generator=g),
        lambda g: torch.poisson(torch.full((9,), 4.0), generator=g),
        lambda g: torch.empty(3).uniform_(generator=g),
        lambda g: torch.ops.aten._standard_gamma(torch.ones(3), g),
    ],
)
def test_default_generator_as_argument_means_the_job(draw):
    torch.manual_seed(4)
    expected = draw(torch.default_generator)
    process_wide = torch.get_rng_state()
    with JobStreams(4).thread():
        assert torch.equal(draw(torch.default_generator), expected)
    with JobStreams(4).thread():
        assert torch.equal(draw(torch.random.default_generator), expected)
    assert torch.equal(torch.get_rng_state(), process_wide)


def test_default_generator_as_argument_where_python_looks_on():
    from torch.utils.flop_counter import FlopCounterMode

    def draw():
        generator = torch.default_generator
        with FlopCounterMode(display=False):
            return torch.rand(3, generator=generator), torch.empty(3).normal_(generator=generator)

    torch.manual_seed(4)
    expected = draw()
    with JobStreams(4).thread():
        assert equal(draw(), expected)


def test_other_threads_are_not_intercepted():
    torch.manual_seed(8)
    expected = torch.rand(2)
    drawn = []
    with JobStreams(1).thread():
        torch.manual_seed(3)
        other = threading.Thread(target=lambda: (torch.manual_seed(8), drawn.append(torch.rand(2))))
        other.start()
        other.join()
    assert torch.equal(drawn[0], expected)


def test_backward_draws_from_the_job():
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.rand_like(grad)

    def run():
        x = torch.ones(5, requires_grad=True)
        y = x * 1.0
        y.register_hook(lambda grad: grad + torch.randn_like(grad))
        Noisy.apply(y).sum().backward()
        return x.grad

    torch.manual_seed(2)
    expected = run()
    process_wide = torch.get_rng_state()
    with JobStreams(2).thread():
        assert torch.equal(run(), expected)
    assert torch.equal(torch.get_rng_state(), process_wide)


def dropped(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.dropout(x + torch.rand(4), 0.5)


def scripted(x):
    return torch.jit.script(dropped)(x)


def traced(x):
    return torch.jit.trace(lambda t: t + torch.rand(4), (x,), check_trace=False)(x)


def vmapped(x):
    return torch.func.vmap(lambda t: t + torch.rand(3), randomness="different")(x.reshape(2, 2, 1))


def differentiated(x):
    return torch.func.grad(lambda t: (torch.nn.functional.dropout(t, 0.5) ** 2).sum())(x)


def fx_traced(x):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(lambda t: t + torch.rand(4).bernoulli_(0.5))(x)(x)


def in_user_mode(x):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(4)


def compiled(x):
    torch.compiler.reset()
    return torch.compile(dropped, backend="aot_eager")(x)


def in_replaying_mode(x):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Replaying(TorchDispatchMode):
        """Draws each number twice, from the same state."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            state = torch.get_rng_state()
            func(*copy.deepcopy(args), **(kwargs or {}))
            torch.set_rng_state(state)
            return func(*args, **(kwargs or {}))

    with Replaying():
        return torch.rand(3), x.clone().normal_(), x.clone().bernoulli_(0.5)


def in_wrapper_subclass(x):
    from torch.testing._internal.two_tensor import TwoTensor

    both = TwoTensor(x.clone(), x.clone())
    drawn = [torch.rand_like(both), both.clone().uniform_(), torch.bernoulli(both * 0.5)]
    return [part for two in drawn for part in (two.a, two.b)]


def in_inference_mode(x):
    with torch.inference_mode():
        return torch.nn.functional.dropout(x, 0.5).clone()


def on_default_device(x):
    with torch.device("cpu"):
        return torch.rand(4) + x


def of_subclass(x):
    class Mine(torch.Tensor):
        pass

    return x.clone().as_subclass(Mine).uniform_().bernoulli().as_subclass(torch.Tensor)


def of_parameter(x):
    parameter = torch.nn.Parameter(x.clone())
    torch.nn.init.normal_(parameter)
    return parameter.detach()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, on its way out
@pytest.mark.parametrize(
    "draw",
    [
        scripted,
        traced,
        vmapped,
        differentiated,
        fx_traced,
        in_user_mode,
        compiled,
        in_replaying_mode,
        in_wrapper_subclass,
        in_inference_mode,
        on_default_device,
        of_subclass,
        of_parameter,
    ],
)
def test_draws_by_way_of(draw):
    x = torch.ones(4)
    draw(x)  # what is compiled at the first call draws there
    torch.manual_seed(6)
    expected = draw(x), torch.rand(2)
    torch.manual_seed(99)
    process_wide = torch.get_rng_state()
    with JobStreams(6).thread():
        assert equal((draw(x), torch.rand(2)), expected)
    with JobStreams().thread():
        torch.manual_seed(6)
        assert equal((draw(x), torch.rand(2)), expected)
    assert torch.equal(torch.get_rng_state(), process_wide)
    torch.manual_seed(6)
    with JobStreams().thread():  # and never seeds
        assert equal((draw(x), torch.rand(2)), expected)


def test_meta_tensors_draw_nothing():
    streams = JobStreams(0)
    before = streams.cpu.get_state()
    with streams.thread():
        torch.nn.Linear(3, 3, device="meta")
        torch.rand(3, device="meta")
    assert torch.equal(streams.cpu.get_state(), before)


def test_an_error_in_a_draw_leaves_the_thread_intercepted():
    torch.manual_seed(1)
    expected = torch.rand(2)
    with JobStreams(1).thread():
        with pytest.raises(RuntimeError):
            torch.empty(2).bernoulli_(7.0)
        assert torch.equal(torch.rand(2), expected)
