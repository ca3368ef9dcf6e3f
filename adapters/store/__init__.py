"""Versions of models, signed.

Versions and aliases are in model_store.py, over storage.py (folder, S3); trust_policy.py decides
what may be opened; golden_rows.py and verification.py whether it still predicts the same.
"""
