"""Reading the ledger: runs, where a row came from, how good predictions were, who is alive."""
