"""Akash's Stack Definition Language, 2.0 and 2.1: what it accepts, the manifest it stands for, and that manifest's
hash.

Two readers, since two programs of Akash's read these files and do not agree. *Strict* says what the TypeScript
library `@akashnetwork/chain-sdk` says, which Akash's own console uses: an unknown field anywhere is an error.
*Lenient* follows the Go parser of the chain and its providers: it overlooks unknown fields inside a service and knows
fields that are newer. Facts, with the functions they were read from: docs/reference/interop.md.
"""
