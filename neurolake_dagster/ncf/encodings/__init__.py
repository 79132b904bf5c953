"""Encodings of plain numpy values: each module holds one encoding, both ways, with its bounds.

They know streams and numbers, never Arrow types (those are in `kinds`).
"""
