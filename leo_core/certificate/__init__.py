"""Evidence that anyone can re-check with :mod:`leo_core.checker`: what holds there (``evidence``), and ``write``."""
