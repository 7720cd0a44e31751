"""What goes over each wire, by itself: the bodies that a prompt becomes, and what a reply's body says.

For those that have no provider to talk to: the record of earlier calls. It sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.llm import anthropic_client, openai_client
from agents.llm.replies import Reading, parse_object, read, structured_text
from agents.llm.scripted import FREE, body, read_turn
from agents.llm.types import ModelName, Prompt


@dataclass(frozen=True)
class Wire:
    """``bodies``: every body that may be sent for a prompt; ``read``: what a reply's body comes to, where
    it is that to a prompt with tools and where not."""

    bodies: Callable[[Prompt], list[dict[str, Any]]]
    read: Callable[[str, bool], Reading]


def wire(model: str) -> Wire:
    """The wire of a model by its name; that of the scripted double for a name that is no provider's."""
    try:
        name = ModelName.parse(model)
    except ValueError:
        return Wire(lambda prompt: [body(prompt)], _scripted)
    if name.provider == "anthropic":
        bodies, reader = anthropic_client.bodies, anthropic_client.read_message
    else:
        at_home = name.base_url is None
        bodies = openai_client.bodies
        reader = openai_client.read_response if at_home else openai_client.read_completion
    return Wire(
        lambda prompt: bodies(name, prompt), lambda text, tools: reader(parse_object(text), tools)
    )


def _scripted(text: str, tools: bool) -> Reading:
    return read_turn(text) if tools else read(lambda: structured_text(text), FREE)
