"""Calling the model: rows that cannot be scored, missing values, time limits."""
