"""Objects and exceptions that raise, or return wrong values, on any access."""

RAISED = [ValueError, ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit]


class Hostile:
    """Raises on any access."""

    def __init__(self, error):
        object.__setattr__(self, "error", error)

    def _raise(self, *args, **kwargs):
        raise object.__getattribute__(self, "error")("by the test")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __float__ = __len__ = __iter__ = _raise
    __getattr__ = __getitem__ = __int__ = __index__ = __format__ = __reduce_ex__ = _raise
    __array__ = __call__ = __dir__ = __sizeof__ = __deepcopy__ = __copy__ = __contains__ = _raise

    @property
    def __class__(self):
        self._raise()

    @property
    def __dict__(self):
        self._raise()


class NotText:
    def __repr__(self):
        return 3

    __str__ = __float__ = __repr__


def hostile_error(error, base=Exception):
    class Error(base):
        __str__ = __repr__ = __getattr__ = __setattr__ = lambda self, *args: fail()
        args = __notes__ = __cause__ = __context__ = __traceback__ = property(lambda self: fail())
        exceptions = property(lambda self: fail())
        with_traceback = lambda self, tb: fail()  # noqa: E731

        @property
        def __class__(self):
            fail()

    def fail():
        raise error("by the test")

    return Error


def strange_exceptions():
    def no_text():
        class Error(RuntimeError):
            def __str__(self):
                return 3  # noqa: PLE0307

        return Error("x")

    def no_notes():
        error = ValueError("x")
        error.__notes__ = Hostile(SystemExit)
        return error

    def hostile_notes():
        error = ValueError("x")
        error.__notes__ = [Hostile(SystemExit), 3]
        return error

    def hostile_args():
        return ValueError(Hostile(SystemExit), NotText())

    def hostile_attribute():
        error = ValueError("x")
        error.it = error.exceptions = Hostile(SystemExit)
        return error

    def hostile_cause():
        error = ValueError("x")
        error.__cause__ = hostile_error(SystemExit)()
        return error

    def cycle():
        error, other = ValueError("x"), KeyError("y")
        error.__cause__, other.__cause__ = other, error
        error.args = (other, error)
        return error

    def no_module():
        class Error(Exception):
            __module__ = 3

        return Error("x")

    def says_it_is_ctrl_c():
        class Error(Exception):
            @property
            def __class__(self):
                return KeyboardInterrupt

        return Error("x")

    def says_its_class_a_few_times():
        class Error(Exception):
            times = 0

            @property
            def __class__(self):
                Error.times += 1
                if Error.times > 3:
                    raise SystemExit("by the test")
                return Error

        return Error("x")

    def long_chain():
        error = ValueError(0)
        for number in range(3000):
            following = ValueError(number)
            following.__context__ = error
            error = following
        return error

    def nested_deeply():
        error = ValueError(0)
        for _ in range(3000):
            error = ValueError(error)
        return error

    return [*locals().values()]
