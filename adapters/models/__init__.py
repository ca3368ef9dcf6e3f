"""The contract that a model fulfils: Model, its signature, the registry of adapters."""
