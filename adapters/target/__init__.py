"""Tables of predictions and the view that readers use.

predictions writes them, tables and key_types define them, replayed_rows adds rows to a run,
retention deletes old runs.
"""
