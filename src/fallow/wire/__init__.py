"""What travels and how: messages, canonical encoding, signed documents, claims and receipts. Pure; imports only `units`
and `errors`."""
