"""Webhooks: who may be called, signing, sending, and the tasks and queue of their deliveries."""
