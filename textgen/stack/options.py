"""What `textgen up` was asked for: its options over the settings over the defaults."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from textgen.address import state_home
from textgen.settings import CONNECTION_FIELDS, Settings, get_settings


@dataclass(frozen=True)
class Options:
    """The options of one stack, each settled."""

    state_dir: Path
    host: str
    port: int
    flower_port: int
    workers: int
    concurrency: int
    #: Default engine; empty: what the settings and the installation give.
    engine: str

    @classmethod
    def over_settings(cls, state_dir: Path | None, **given: str | int | None) -> Self:
        """Take the options that are given, and the rest from the settings."""
        settings = get_settings()
        chosen = {name: value for name, value in given.items() if value is not None}
        defaults = {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(cls)
            if field.name != "state_dir"
        }
        return cls(state_dir=folder(state_dir), **(defaults | chosen))

    def as_json(self) -> str:
        """The options as text, for a process of their own."""
        return json.dumps(dataclasses.asdict(self) | {"state_dir": str(self.state_dir)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"state_dir": Path(fields["state_dir"])}))


def folder(state_dir: Path | None) -> Path:
    """The state directory: the one given, or this user's."""
    return (state_dir or state_home()).expanduser().absolute()


class _GivenSettings(Settings):
    """The settings without those of another stack that already runs."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, dotenv_settings)


def given_connection() -> Settings | None:
    """The settings, if they say where broker and store are; None where an embedded server is due."""
    get_settings()  # reports what is out of bounds
    settings = _GivenSettings()
    return settings if settings.model_fields_set & CONNECTION_FIELDS else None
