"""How many tokens a prompt has, about, before anybody has counted them. Pure."""

from __future__ import annotations

from textgen.lifecycle import Record

#: Characters of a token, about: the rule of thumb for English of the makers of models
#: (help.openai.com/en/articles/4936856).
CHARS_PER_TOKEN = 4


def prompt_tokens(record: Record) -> int:
    """Tokens of a task's prompt, or of its messages together."""
    turns = record.messages or [{"content": record.prompt or ""}]
    return -(-sum(len(turn["content"]) for turn in turns) // CHARS_PER_TOKEN)
