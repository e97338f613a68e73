"""What `textgen webhooks test` says of an answer."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from textgen.cli import cli
from textgen.webhooks.send import Answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(204, "", 3), ["delivered (status 204), 3 ms"]),
        (Answer(302, "redirect", 3), ["redirect (status 302), 3 ms"]),
        (Answer(500, "status", 3), ["not taken (status 500), 3 ms"]),
        (Answer(None, "no connection", 3), ["no connection, 3 ms"]),
        (
            Answer(410, "status", 3),
            [
                "not taken (status 410), 3 ms",
                "A delivery that is answered so ends all that is due to the address, for a week.",
            ],
        ),
    ],
)
def test_the_answer_to_a_test_is_said_in_words(monkeypatch, answer, said):
    monkeypatch.setattr("textgen.client.try_webhook", lambda url: answer)
    run = CliRunner().invoke(cli, ["webhooks", "test", "https://example.com/hooks"])
    assert run.stdout.splitlines() == said
    assert run.exit_code == (0 if answer.is_success else 1)
