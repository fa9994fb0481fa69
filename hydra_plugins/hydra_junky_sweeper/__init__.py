"""``hydra/sweeper=junky``: a grid with alternatives, crossed with ordinary Hydra sweeps."""

__version__ = "0.1.0"
