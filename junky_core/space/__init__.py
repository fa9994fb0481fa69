"""The search space: the fit-params grammar and what it expands to."""
