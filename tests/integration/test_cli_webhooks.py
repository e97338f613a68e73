"""`textgen webhooks`: an address tested, the secret shown and rotated, the log of deliveries."""

from __future__ import annotations

import json
from collections.abc import Callable

from standardwebhooks.webhooks import Webhook

from tests.environment import Environment
from tests.integration.terminals import textgen
from tests.receiver import Receiver


def test_the_secret_is_shown_once_rotated_and_signs_what_is_tested(
    stack_env: Callable[..., Environment],
) -> None:
    env = stack_env("valkey", TEXTGEN_WEBHOOK_ALLOW="127.0.0.0/8")
    shown = textgen(env, "webhooks", "secret", "show-once").stdout.strip()
    again = textgen(env, "webhooks", "secret", "show-once")
    rotated = textgen(env, "webhooks", "secret", "rotate").stdout.strip()
    with Receiver(200, 500) as receiver:
        taken = textgen(env, "webhooks", "test", receiver.url)
        failed = textgen(env, "webhooks", "test", receiver.url, "--json")
        for secret in (shown, rotated):
            assert Webhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)

    assert (again.returncode, again.stdout) == (1, "")
    assert "rotate" in again.stderr
    assert (taken.returncode, taken.stdout.split(",")[0]) == (0, "delivered (status 200)")
    assert failed.returncode == 1
    assert (json.loads(failed.stdout)["delivered"], json.loads(failed.stdout)["reason"]) == (False, "status")


def test_an_address_inside_is_wrong_usage(stack_env: Callable[..., Environment]) -> None:
    refused = textgen(stack_env("valkey"), "webhooks", "test", "https://127.0.0.1/?canary")
    assert refused.returncode == 2
    assert "can be public" in refused.stderr
    assert "canary" not in refused.stderr


def test_the_deliveries_of_an_unknown_task_are_exit_code_3(stack_env: Callable[..., Environment]) -> None:
    assert textgen(stack_env("valkey"), "webhooks", "deliveries", "0" * 36).returncode == 3
