"""How rows lie in files: one module a format, one line each in `registry.py`."""
