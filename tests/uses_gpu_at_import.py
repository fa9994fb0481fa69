"""A module that cannot be preloaded: it starts the GPU's runtime."""

import fake_cuda

fake_cuda.CUDA.init()
