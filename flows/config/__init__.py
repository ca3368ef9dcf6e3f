"""What was written down: nightshift.yaml, the job files, the environment. Read once, frozen."""
