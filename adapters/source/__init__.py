"""The rows to be scored, as they are at one moment.

relation says what the table is, statements writes SQL, snapshot reads in chunks, source opens it.
Each may import those before it.
"""
