"""``hydra/launcher=junky``: Hydra jobs on device-slot threads, each as if it ran alone."""

__version__ = "0.1.0"
