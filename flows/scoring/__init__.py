"""Rows in, predictions out, without Prefect.

Start at recipe.py: the steps of one run, in order. stream.py scores in one process, shards.py in
several; prediction/ calls the model, challenger/ scores a second one alongside.
"""
