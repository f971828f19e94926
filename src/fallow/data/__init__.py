"""Training data as people have it, read and checked: formats of files (`formats/`), shapes of rows (`shapes/`), and the
one way through both (`read.py`). Needs no tokenizer and no tensors."""
