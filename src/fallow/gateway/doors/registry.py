"""The doors that there are."""

from __future__ import annotations

from fallow.gateway.doors.anthropic import MessagesDoor
from fallow.gateway.doors.chat import ChatDoor
from fallow.gateway.doors.completions import CompletionDoor
from fallow.gateway.doors.door import Door
from fallow.gateway.doors.ollama import OllamaChatDoor, OllamaGenerateDoor
from fallow.gateway.doors.responses import ResponsesDoor

DOORS: tuple[Door, ...] = (
    ChatDoor(),
    CompletionDoor(),
    ResponsesDoor(),
    MessagesDoor(),
    OllamaChatDoor(),
    OllamaGenerateDoor(),
)
