"""Talking to language models: one call in, one full record out. No SDK is loaded before a call."""

from agents.llm.clients import KEYS, Client, MissingKey, connect
from agents.llm.prices import Price, cost, load_prices, most_of, worst_case
from agents.llm.recorded import RecordedClient
from agents.llm.scripted import ScriptedClient
from agents.llm.types import Call, Message, ModelName, Outcome, Prompt

__all__ = [
    "KEYS",
    "Call",
    "Client",
    "Message",
    "MissingKey",
    "ModelName",
    "Outcome",
    "Price",
    "Prompt",
    "RecordedClient",
    "ScriptedClient",
    "connect",
    "cost",
    "load_prices",
    "most_of",
    "worst_case",
]
