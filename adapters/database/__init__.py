"""Reading source tables and keeping predictions: the ledger, the rows, the view readers use."""
