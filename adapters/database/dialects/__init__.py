"""What Nightshift needs to know about each database, one class per file.

base.py has what any SQL database can do; capabilities.py, above, has the registry.
"""
