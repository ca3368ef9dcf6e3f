"""The rows to be scored, as they were at one moment.

source.py says what the table is and opens it; snapshot.py reads it in chunks.
"""
