"""Bacalhau's jobs, in YAML or JSON, as files or as its interface takes them, with keys in any case and Go's templates.

Facts from bacalhau-project/bacalhau at e28960c (v1.9.3): `pkg/models/`, `pkg/util/templates/`.
"""
