"""Scheduled batch inference: score database tables with machine-learning models, exactly once."""
