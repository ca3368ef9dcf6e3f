"""Which partitions: pure functions, without Prefect and without SQL."""
