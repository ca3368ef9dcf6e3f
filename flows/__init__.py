"""What happens, in what order. Knows no ML library.

The verbs are files: score, backfill, replay, clean, register. The nouns are packages. Imports go
down: cli > operations > backfill > score > replay, clean, report > register, checks, orchestrator >
scoring > planning > config, text.
"""
