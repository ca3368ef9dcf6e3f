"""The command line: one file per noun; main.py registers the commands."""
