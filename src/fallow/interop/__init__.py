"""Files that people wrote for other networks, read as they are: Akash SDL, Bacalhau jobs, Flux specifications, Compose.

Each format is a module or folder that turns bytes into one neutral `Import` (`model.py`) or into a `FileRefused` that
names the line, the field, what stands there and what would do. Everything here is pure: bytes in, values out, and
whatever a stranger wrote costs bounded time and memory (`tree.py`). Nothing here starts anything.
"""
