"""Which run owns, wrote and published which rows.

ledger.py is the facade over admission.py (who may begin), leases.py (who is alive), shards.py (key
ranges and their chunks) and publications.py (what readers see). pointer.py is what people do to
publications, backfills.py has the plans. schema.py has the tables, creation.py creates them; the
package history reads them.
"""
