"""selflong: a model's short-context skill is enough to teach it long context (arXiv 2412.18860)."""

__version__ = "0.1.0"
