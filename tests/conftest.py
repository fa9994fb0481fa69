"""What all tests need of the process that runs them."""

import signal

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that;
# tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
