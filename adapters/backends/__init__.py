"""How rows move in and out of each database: one file, or a few, per database.

registry.py finds it. What a connection and its SQL are like is in database/dialects.
"""
