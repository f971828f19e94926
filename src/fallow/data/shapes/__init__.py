"""What rows look like: one class a shape, one line each in `registry.py`."""
