"""Every setting of every program: its default, its bounds, its flag, its variables, and the one function that reads them all.

In reading order:

- `sections`: the settings themselves, a frozen dataclass a concern.
- `setting`: what a setting is, and how a section checks itself.
- `values`: how the value of a setting is written as text.
- `loading`: `load`, which takes each value from the flag, the environment, the TOML file or the default, in this order.

Sections are passed down by constructor, sliced to what the callee needs; nothing below the composition roots reads the environment.
"""

from __future__ import annotations

from gopher.config.loading import (
    DEV,
    SERVER,
    WORKER,
    Program,
    Settings,
    arguments_for,
    as_text,
    describe_settings,
    load,
    read_document,
)
from gopher.config.sections import (
    SECTIONS,
    DevConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
    WorkerConfig,
)
from gopher.config.setting import Setting, settings_of
from gopher.config.values import is_loopback, join_address, mask_url, parse_seconds, split_address

__all__ = [
    "DEV",
    "SECTIONS",
    "SERVER",
    "WORKER",
    "DevConfig",
    "Program",
    "ServerConfig",
    "Setting",
    "Settings",
    "StoreConfig",
    "TelemetryConfig",
    "WorkerConfig",
    "arguments_for",
    "as_text",
    "describe_settings",
    "is_loopback",
    "join_address",
    "load",
    "mask_url",
    "parse_seconds",
    "read_document",
    "settings_of",
    "split_address",
]
