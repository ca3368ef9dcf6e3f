"""The versions of the ledger's schema, in their order."""
