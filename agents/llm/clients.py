"""From a model's name to a client: the one door to the providers.

It takes the key from the environment, and only from there. It opens no connection: a wrong key
shows as outcome `auth` of the first call.
"""

from __future__ import annotations

import os
from typing import Protocol

from agents.llm.anthropic_client import AnthropicClient
from agents.llm.border import NO_KEY
from agents.llm.openai_client import OpenAIClient
from agents.llm.types import Call, ModelName, Prompt

_KEY_OF = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
KEYS = tuple(_KEY_OF.values())  # the variables of the environment that hold a key


class MissingKey(ValueError):
    """The model's provider needs a key and the environment has none; ``key`` is its variable."""

    key = ""


class Client(Protocol):
    """Anything that completes prompts: the providers' clients and the scripted double."""

    async def complete(self, prompt: Prompt) -> Call:
        """One completion, recorded; never raises for trouble with the provider."""
        ...


def connect(name: ModelName, *, timeout_seconds: float) -> Client:
    """A client for `name`, each call limited to `timeout_seconds` of wall-clock time.

    The provider's key, where the environment has one, is sent to `name.base_url` too: the user
    named that server. Without `base_url` the SDKs honour ANTHROPIC_BASE_URL and OPENAI_BASE_URL.
    Raises MissingKey.
    """
    key = os.environ.get(_KEY_OF[name.provider], "").strip()
    if not key and name.base_url is None:
        raise _missing(name, _KEY_OF[name.provider])
    if name.provider == "anthropic":
        return AnthropicClient(name, key or NO_KEY, timeout_seconds)
    return OpenAIClient(name, key or NO_KEY, timeout_seconds)


def _missing(name: ModelName, key: str) -> MissingKey:
    error = MissingKey(
        f"model {name} needs {key} in the environment: "
        "export it, or use a model with @base_url of a local server"
    )
    error.key = key  # not an argument: it has to survive its way out of an actor
    return error
