"""What goes over each wire, by itself: the bodies that a prompt becomes, and what a reply's body says.

For those that have no provider to talk to: the record of earlier calls. It sends nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.llm import anthropic_client, openai_client
from agents.llm.replies import parse_object, structured_text
from agents.llm.types import ModelName, Prompt


@dataclass(frozen=True)
class Wire:
    """``bodies``: every body that may be sent for a prompt; ``data``: the structured reply in the body of
    one that was `ok`, which raises Malformed for any other."""

    bodies: Callable[[Prompt], list[dict[str, Any]]]
    data: Callable[[str], dict[str, Any] | None]


def wire(model: str) -> Wire:
    """The wire of a model by its name; that of the scripted double for a name that is no provider's."""
    try:
        name = ModelName.parse(model)
    except ValueError:
        return Wire(lambda prompt: [dataclasses.asdict(prompt)], structured_text)
    if name.provider == "anthropic":
        bodies, read = anthropic_client.bodies, anthropic_client.read_message
    else:
        at_home = name.base_url is None
        bodies = openai_client.bodies
        read = openai_client.read_response if at_home else openai_client.read_completion
    return Wire(lambda prompt: bodies(name, prompt), lambda text: read(parse_object(text)).data)
