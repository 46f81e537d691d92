"""From ELBO to Diffusion: the small package behind the book."""

__version__ = "0.2.0"
