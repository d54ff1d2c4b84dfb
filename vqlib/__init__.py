"""vqlib: the thin library under a reproducible study of the VQ-VAE and its projected-latent extension.

Importing this package imports no torch, so that parameter errors and ``--help`` answer at once.
"""

__version__ = "0.1.0"
