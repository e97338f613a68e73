"""The fault matrix. Importing this registers all rows."""

from tests.faults.rows import broker, store, submits, webhooks, workers
from tests.faults.rows.registry import ROWS, Row

__all__ = ["ROWS", "Row", "broker", "store", "submits", "webhooks", "workers"]
