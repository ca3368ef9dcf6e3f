"""Which run owns, wrote and published which rows.

ledger.py is the facade; schema.py has the tables; the package history reads them.
"""
