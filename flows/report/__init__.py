"""One run, as people read it.

facts.py collects; html.py, markdown.py and verdict.py write; artifacts.py shows them in Prefect,
files.py on disk.
"""
