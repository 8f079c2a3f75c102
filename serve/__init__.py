"""The HTTP server over bundles of distilled students (and their teachers)."""

__version__ = "0.1.0"
