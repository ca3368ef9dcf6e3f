"""One file, or a few, per database; registry.py finds it.

Nothing outside asks which database it is: it asks the capabilities.
"""
