"""The copy of an exception has its text, and holds nothing of its job."""

import dataclasses
import enum
import gc
import pickle
import sys
import traceback
import weakref

import pytest
import torch

from junky_core.job.detached import StandIn, detached


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as got:
        return got


class WithAttribute(Exception):
    def __init__(self, loss, step):
        super().__init__(f"step {step}")
        self.loss, self.step = loss, step


class WithOwnText(Exception):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def __str__(self):
        return f"the loss was {self.loss.sum().item()}"


class WithSlots(Exception):
    __slots__ = ("loss",)

    def __init__(self, loss):
        super().__init__("slots")
        self.loss = loss


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    loss: object


def attribute_error(tensor):
    try:
        tensor.no_such_attribute
    except AttributeError as error:
        error.obj.held = True  # it is the tensor
        return error


def noted(tensor):
    error = ValueError("noted")
    error.__notes__ = ["a note", tensor]
    return error


HOLDING = {
    "args": AssertionError,
    "args, in containers": lambda tensor: ValueError({"loss": [(tensor, 1)]}, {2}),
    "attribute": lambda tensor: WithAttribute(tensor, 3),
    "own text": WithOwnText,
    "slots": WithSlots,
    "frozen": Frozen,
    "cause": lambda tensor: raised(ValueError("x"), KeyError(tensor)),
    "exception in args": lambda tensor: ValueError(KeyError(tensor)),
    "notes": noted,
    "attribute error": attribute_error,
    "exit": SystemExit,
    "stop": StopIteration,
    "import error": lambda tensor: ImportError("x", name=tensor),
    "file name": lambda tensor: OSError(2, "no such file", tensor),
}
if sys.version_info >= (3, 11):
    HOLDING["group"] = lambda tensor: ExceptionGroup("g", [KeyError(tensor), ValueError("x")])  # noqa: F821
    HOLDING["base group"] = lambda tensor: BaseExceptionGroup(  # noqa: F821
        "g",
        [ExceptionGroup("in it", [KeyError(tensor)]), SystemExit(tensor)],  # noqa: F821
    )


@pytest.mark.parametrize("make", HOLDING.values(), ids=HOLDING)
def test_the_copy_has_the_same_text_and_holds_no_tensor(make):
    tensor = torch.full((3,), 7.0)
    held = weakref.ref(tensor)
    error = raised(make(tensor))
    text, whole = str(error), traceback.format_exception_only(type(error), error)
    copy = detached(error)
    assert str(copy) == text
    assert isinstance(copy, type(error))
    assert traceback.format_exception_only(type(copy), copy) == whole
    assert error.__traceback__ is not None
    del tensor, error
    gc.collect()
    assert held() is None
    assert str(copy) == text


def local_by_attribute(tensor):
    class Local(ValueError):
        last = [tensor]

    return Local("words", 3)


def local_by_method(tensor):
    class Local(ValueError):
        def __str__(self):
            return f"loss {tensor.sum().item()}"

    return Local()


def local_by_default(tensor):
    class Local(ValueError):
        def show(self, *, loss=tensor):
            return loss

    return Local("words")


def local_by_property(tensor):
    class Local(ValueError):
        @property
        def loss(self):
            return tensor

    return Local("words")


def local_by_base(tensor):
    class Base(ValueError):
        last = tensor

    class Local(Base):
        pass

    return Local("words")


def local_by_nested_class(tensor):
    class Local(ValueError):
        class Nested:
            last = tensor

    return Local("words")


def local_by_metaclass(tensor):
    class Meta(type):
        last = tensor

    class Local(ValueError, metaclass=Meta):
        pass

    return Local("words")


def local_by_slots(tensor):
    class Local(ValueError):
        __slots__ = ("step",)
        last = tensor

    error = Local("words")
    error.step = 3
    return error


def class_in_args(tensor):
    return ValueError(type(local_by_attribute(tensor)), {"kind": type(local_by_method(tensor))})


def enum_in_args(tensor):
    class Local(enum.Enum):
        LOSS = tensor

    return ValueError(Local.LOSS)


LOCAL = [
    local_by_attribute,
    local_by_method,
    local_by_default,
    local_by_property,
    local_by_base,
    local_by_nested_class,
    local_by_metaclass,
    local_by_slots,
    class_in_args,
    enum_in_args,
]


@pytest.mark.parametrize("as_cause", [False, True], ids=["itself", "cause"])
@pytest.mark.parametrize("make", LOCAL)
def test_a_jobs_class_that_holds_a_tensor_is_replaced(make, as_cause):
    tensor = torch.full((3,), 7.0)
    held = weakref.ref(tensor)
    error = raised(make(tensor))
    error = raised(KeyError("y"), error) if as_cause else error
    text, whole = str(error), traceback.format_exception(error)
    copy = detached(error)
    assert str(copy) == text
    assert traceback.format_exception(copy) == whole
    assert isinstance(copy, KeyError if as_cause else ValueError)
    del tensor, error
    gc.collect()
    assert held() is None
    assert (str(copy), traceback.format_exception(copy)) == (text, whole)


def test_plain_data_of_a_replaced_class_are_kept():
    copy = detached(raised(local_by_slots(torch.ones(1))))
    assert (copy.args, copy.step, type(copy).__name__) == (("words",), 3, "Local")


def test_class_of_a_job_that_holds_only_code_and_plain_data_is_kept():
    class Local(WithAttribute):
        limit = 1.5
        places = ("a", 1)

        def __init__(self, loss, step, more="words"):
            super().__init__(loss, step)
            self.more = more

        @property
        def doubled(self):
            return 2 * self.step

        @classmethod
        def made(cls):
            return cls(torch.ones(1), 3)

    class Lower(Local):
        pass

    copy = detached(raised(Lower.made()))
    assert type(copy) is Lower
    assert (copy.doubled, copy.more, copy.args) == (6, "words", ("step 3",))


def test_context_is_copied_and_hidden_where_it_was():
    def fail(hide):
        try:
            raise KeyError(torch.ones(1))
        except KeyError:
            if hide:
                raise ValueError("x") from None
            raise ValueError("x")

    for hide in (True, False):
        try:
            fail(hide)
        except ValueError as error:
            copy = detached(error)
        assert isinstance(copy.__context__, KeyError)
        assert isinstance(copy.__context__.args[0], StandIn)
        assert ("KeyError" in "".join(traceback.format_exception(copy))) is not hide


def test_plain_data_is_kept_unchanged():
    error = WithAttribute(0.5, 3)
    error.where = {"file": ("a.txt", 1), "seen": {1, 2}, "dtype": torch.float32, "kind": int}
    copy = detached(error)
    assert (copy.loss, copy.step, copy.where) == (0.5, 3, error.where)
    assert type(copy) is WithAttribute


def test_the_original_exception_is_unchanged():
    tensor = torch.ones(1)
    error = raised(AssertionError(tensor))
    detached(error)
    assert error.args[0] is tensor


def test_fields_of_the_systems_errors_are_kept():
    error = raised(FileNotFoundError(2, "No such file", "/a/b"))
    copy = detached(error)
    assert (copy.errno, copy.strerror, copy.filename) == (2, "No such file", "/a/b")


def test_traceback_shows_the_same_lines():
    error = raised(ValueError("x"), raised(KeyError("y")))
    copy = detached(error)
    for one, other in ((copy, error), (copy.__cause__, error.__cause__)):
        shown, meant = (traceback.extract_tb(link.__traceback__) for link in (one, other))
        assert [(f.filename, f.lineno, f.name) for f in shown] == [
            (f.filename, f.lineno, f.name) for f in meant
        ]


@pytest.mark.parametrize("make", [AssertionError, WithOwnText])
def test_copy_can_be_pickled(make):
    copy = detached(raised(make(torch.ones(2))))
    again = pickle.loads(pickle.dumps(copy))
    assert str(again) == str(copy)
    assert isinstance(again, make)


def test_exception_that_cannot_be_copied_becomes_its_text():
    class Sealed(Exception):
        def __getattribute__(self, name):
            raise SystemExit

    copy = detached(raised(Sealed("x")))
    assert type(copy) is RuntimeError
    assert str(copy).startswith("Sealed: ")
