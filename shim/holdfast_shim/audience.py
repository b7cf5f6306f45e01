"""What is known about MCP clients by name: what they show to a model, and how much.

Measured on the clients themselves. A name is a label, so nothing here is security.
"""

from __future__ import annotations

# They give the model only structuredContent when there is any, and hide the text.
_HIDES_TEXT = ("claude-code", "codex")

# Characters of an answer that reach the model uncut, by a part of the client's name.
_BUDGETS = (
    ("copilot", 9_000),  # cuts the middle out beyond 10 KB
    ("gemini", 36_000),  # keeps head and tail beyond 40,000
    ("codex", 30_000),  # cuts the middle out beyond 48,000
    ("claude-code", 30_000),  # puts it in a file beyond 50,000
)
_BUDGET = 30_000


def hides_text(name: str) -> bool:
    """Return whether the client shows no text beside structuredContent."""
    return name.lower().startswith(_HIDES_TEXT)


def budget(name: str) -> int:
    """Return how many characters of an answer the client shows whole."""
    lower = name.lower()
    return next((size for part, size in _BUDGETS if part in lower), _BUDGET)
