"""How large tests are: small by default, in full with ``JUNKY_LONG=1``."""

import os

LONG = os.environ.get("JUNKY_LONG") == "1"
