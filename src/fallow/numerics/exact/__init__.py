"""Arithmetic that gives the same bits on every machine: `docs/spec/exact-arithmetic.md`, in torch and in C."""
