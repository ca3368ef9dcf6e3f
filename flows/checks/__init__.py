"""What must hold before readers see a run.

audit.py runs the checks; each kind is a file; results.py is what they return; evidence.py is what
they may ask.
"""
