"""What touches the outside world: models, the model store, databases. Knows nothing of Prefect.

Imports nothing itself, so that an error class does not cost an import of pandas.
"""
