"""The settings of the cache: a base of `textgen.settings.Settings`."""

from __future__ import annotations

from pydantic import BaseModel, Field


class CacheSettings(BaseModel):
    """How long results are kept to answer the same request again, and how many."""

    cache_ttl_s: int = Field(
        3600,
        ge=0,
        le=2_592_000,
        description="Seconds that a result answers the same request again; 0: nothing is cached or shared.",
    )
    cache_max_entries: int = Field(
        10_000, ge=1, le=100_000, description="Cached results of one owner; the oldest make room."
    )
    cache_max_bytes: int = Field(
        67_108_864, ge=1024, description="Bytes of the cached results of one owner; the oldest make room."
    )
    cache_shared: bool = Field(
        False, description="Whether all owners share cached results and generations that go on."
    )
