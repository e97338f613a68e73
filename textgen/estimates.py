"""How many tokens a task may use at the most, before anybody has counted them. Pure."""

from __future__ import annotations

from textgen.lifecycle import Record
from textgen.settings import Settings

#: Characters of a token, about: the rule of thumb for English of the makers of models
#: (help.openai.com/en/articles/4936856).
CHARS_PER_TOKEN = 4


def most_tokens(record: Record, settings: Settings) -> tuple[int, int]:
    """The most that one attempt at a task may use: tokens of the prompt, about, and of the text."""
    turns = record.messages or [{"content": record.prompt or ""}]
    prompt = -(-sum(len(turn["content"]) for turn in turns) // CHARS_PER_TOKEN)
    return prompt, record.params.get("max_tokens") or settings.max_tokens
