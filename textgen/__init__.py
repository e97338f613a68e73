"""Self-hosted asynchronous text generation on Celery."""

__version__ = "0.1.0"
