"""From ELBO to Diffusion: the small package behind the book."""

__version__ = "0.6.0"
